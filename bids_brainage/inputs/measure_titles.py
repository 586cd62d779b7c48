"""What a person reads for the measures of other programs."""

from __future__ import annotations

STRUCTURES = {
    'Lateral-Ventricle': 'Lateral ventricles',
    'Inf-Lat-Vent': 'Temporal horns of the ventricles',
    '3rd-Ventricle': 'Third ventricle',
    '4th-Ventricle': 'Fourth ventricle',
    'CSF': 'Fluid between the ventricles and around the brain stem',
    'choroid-plexus': 'Choroid plexus',
    'Cerebellum-White-Matter': 'White matter of the cerebellum',
    'Cerebellum-Cortex': 'Cortex of the cerebellum',
    'Brain-Stem': 'Brain stem',
    'Thalamus': 'Thalamus',
    'Caudate': 'Caudate nucleus',
    'Putamen': 'Putamen',
    'Pallidum': 'Pallidum',
    'Hippocampus': 'Hippocampus',
    'Amygdala': 'Amygdala',
    'Accumbens-area': 'Nucleus accumbens',
    'VentralDC': 'Ventral diencephalon',
    'CC_Anterior': 'Corpus callosum, anterior',
    'CC_Mid_Anterior': 'Corpus callosum, mid-anterior',
    'CC_Central': 'Corpus callosum, central',
    'CC_Mid_Posterior': 'Corpus callosum, mid-posterior',
    'CC_Posterior': 'Corpus callosum, posterior',
    'WM-hypointensities': 'Dark spots of white matter',
    'white matter': 'White matter of the cerebrum',
    'cortex': 'Cortex',
}
"""Structure of a volume → title."""

REGIONS = {
    'bankssts': 'Banks of the superior temporal sulcus',
    'caudalanteriorcingulate': 'Caudal anterior cingulate',
    'caudalmiddlefrontal': 'Caudal middle frontal',
    'cuneus': 'Cuneus',
    'entorhinal': 'Entorhinal',
    'frontalpole': 'Frontal pole',
    'fusiform': 'Fusiform',
    'inferiorparietal': 'Inferior parietal',
    'inferiortemporal': 'Inferior temporal',
    'insula': 'Insula',
    'isthmuscingulate': 'Isthmus of the cingulate',
    'lateraloccipital': 'Lateral occipital',
    'lateralorbitofrontal': 'Lateral orbitofrontal',
    'lingual': 'Lingual',
    'medialorbitofrontal': 'Medial orbitofrontal',
    'middletemporal': 'Middle temporal',
    'paracentral': 'Paracentral',
    'parahippocampal': 'Parahippocampal',
    'parsopercularis': 'Pars opercularis',
    'parsorbitalis': 'Pars orbitalis',
    'parstriangularis': 'Pars triangularis',
    'pericalcarine': 'Pericalcarine',
    'postcentral': 'Postcentral',
    'posteriorcingulate': 'Posterior cingulate',
    'precentral': 'Precentral',
    'precuneus': 'Precuneus',
    'rostralanteriorcingulate': 'Rostral anterior cingulate',
    'rostralmiddlefrontal': 'Rostral middle frontal',
    'superiorfrontal': 'Superior frontal',
    'superiorparietal': 'Superior parietal',
    'superiortemporal': 'Superior temporal',
    'supramarginal': 'Supramarginal',
    'temporalpole': 'Temporal pole',
    'transversetemporal': 'Transverse temporal',
    'cortex': 'Cortex',
}
"""Cortical region (Desikan et al. 2006, doi:10.1016/j.neuroimage.2006.01.021) → title."""

LABELS = {
    **{name: (left, right) for name, left, right in (
        ('Lateral-Ventricle', 4, 43), ('Inf-Lat-Vent', 5, 44), ('Cerebellum-White-Matter', 7, 46),
        ('Cerebellum-Cortex', 8, 47), ('Thalamus', 10, 49), ('Caudate', 11, 50),
        ('Putamen', 12, 51), ('Pallidum', 13, 52), ('Hippocampus', 17, 53), ('Amygdala', 18, 54),
        ('Accumbens-area', 26, 58), ('VentralDC', 28, 60), ('choroid-plexus', 31, 63),
        ('white matter', 2, 41), ('cortex', 3, 42),
    )},
    '3rd-Ventricle': (14,), '4th-Ventricle': (15,), 'Brain-Stem': (16,), 'CSF': (24,),
    'WM-hypointensities': (77,), 'CC_Posterior': (251,), 'CC_Mid_Posterior': (252,),
    'CC_Central': (253,), 'CC_Mid_Anterior': (254,), 'CC_Anterior': (255,),
}  # fmt: skip
"""Structure → its labels in FreeSurfer's colour table."""

CORTICAL = (
    'bankssts', 'caudalanteriorcingulate', 'caudalmiddlefrontal', None, 'cuneus', 'entorhinal',
    'fusiform', 'inferiorparietal', 'inferiortemporal', 'isthmuscingulate', 'lateraloccipital',
    'lateralorbitofrontal', 'lingual', 'medialorbitofrontal', 'middletemporal', 'parahippocampal',
    'paracentral', 'parsopercularis', 'parsorbitalis', 'parstriangularis', 'pericalcarine',
    'postcentral', 'posteriorcingulate', 'precentral', 'precuneus', 'rostralanteriorcingulate',
    'rostralmiddlefrontal', 'superiorfrontal', 'superiorparietal', 'superiortemporal',
    'supramarginal', 'frontalpole', 'temporalpole', 'transversetemporal', 'insula',
)  # fmt: skip
"""Cortical regions in the order of their labels, 1001 and 2001 (right) onwards."""

CORTICAL_MEASURES = {'thickness': ': thickness', 'area': ': surface', 'volume': ': volume'}
"""What is measured of a cortical region → what its title says of the whole cortex."""


def measure_title(feature: str) -> str:
    """Return the name a person reads for a feature of `bids_brainage.inputs.measures`.

    Thickness, surface and volume of a region have one: together they say what the region adds.

    Examples
    --------
    >>> measure_title('insula thickness/cortex thickness'), measure_title('Hippocampus/brain')
    ('Insula', 'Hippocampus')
    """
    above, _, below = feature.partition('/')
    if below == 'head':
        return 'Brain within its envelope'
    if above == 'brain':
        return 'Size of the brain'
    region, _, what = above.rpartition(' ')
    if what in CORTICAL_MEASURES and region in REGIONS:
        return REGIONS[region] + (CORTICAL_MEASURES[what] if region == 'cortex' else '')
    return STRUCTURES[above]


def labels_of(feature: str) -> tuple[int, ...]:
    """Return the labels of FreeSurfer's colour table on which a feature is painted.

    Measures of the whole brain or cortex have no place of their own.

    Examples
    --------
    >>> labels_of('insula thickness/cortex thickness'), labels_of('Hippocampus/brain')
    ((1035, 2035), (17, 53))
    >>> labels_of('brain')
    ()
    """
    above = feature.split('/')[0]
    region, _, what = above.rpartition(' ')
    if what in CORTICAL_MEASURES and region in CORTICAL:
        place = CORTICAL.index(region) + 1
        return (1000 + place, 2000 + place)
    return LABELS.get(above, ())
