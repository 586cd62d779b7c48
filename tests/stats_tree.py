"""Stats files as FreeSurfer and FastSurfer write them, filled with given numbers."""

from __future__ import annotations

REGIONS = (
    'bankssts', 'caudalanteriorcingulate', 'caudalmiddlefrontal', 'cuneus', 'entorhinal',
    'fusiform', 'inferiorparietal', 'inferiortemporal', 'isthmuscingulate', 'lateraloccipital',
    'lateralorbitofrontal', 'lingual', 'medialorbitofrontal', 'middletemporal', 'parahippocampal',
    'paracentral', 'parsopercularis', 'parsorbitalis', 'parstriangularis', 'pericalcarine',
    'postcentral', 'posteriorcingulate', 'precentral', 'precuneus', 'rostralanteriorcingulate',
    'rostralmiddlefrontal', 'superiorfrontal', 'superiorparietal', 'superiortemporal',
    'supramarginal', 'frontalpole', 'temporalpole', 'transversetemporal', 'insula',
)  # fmt: skip
NOT_IN_DKT = ('bankssts', 'frontalpole', 'temporalpole')
PAIRS = {
    'Lateral-Ventricle': 7000.0, 'Inf-Lat-Vent': 300.0, 'Cerebellum-White-Matter': 15000.0,
    'Cerebellum-Cortex': 55000.0, 'Thalamus': 7500.0, 'Caudate': 3600.0, 'Putamen': 5000.0,
    'Pallidum': 1900.0, 'Hippocampus': 4200.0, 'Amygdala': 1700.0, 'Accumbens-area': 550.0,
    'VentralDC': 4000.0, 'vessel': 20.0, 'choroid-plexus': 500.0,
}  # fmt: skip
SINGLE = {
    '3rd-Ventricle': 900.0, '4th-Ventricle': 1800.0, 'Brain-Stem': 21000.0, 'CSF': 950.0,
    '5th-Ventricle': 1.0, 'WM-hypointensities': 1200.0, 'Optic-Chiasm': 180.0,
    'CC_Posterior': 950.0, 'CC_Mid_Posterior': 500.0, 'CC_Central': 520.0,
    'CC_Mid_Anterior': 520.0, 'CC_Anterior': 900.0,
}  # fmt: skip
TOTALS = {
    'BrainSegVol': 1180000.0, 'BrainSegVolNotVent': 1160000.0, 'lhCortexVol': 240000.0,
    'rhCortexVol': 241000.0, 'CortexVol': 481000.0, 'lhCerebralWhiteMatterVol': 230000.0,
    'rhCerebralWhiteMatterVol': 231000.0, 'CerebralWhiteMatterVol': 461000.0,
    'SurfaceHoles': 30.0, 'eTIV': 1550000.0,
}  # fmt: skip
GROUPS = {'eTIV': 'EstimatedTotalIntraCranialVol'}
UNITS = {'SurfaceHoles': 'unitless'}

VERSIONS = {
    'freesurfer 7': '# cvs_version 7.3.2\n',
    'freesurfer 6': '# cvs_version $Id: mri_segstats.c,v 1.121 2016/05/31 17:27:11 greve Exp $\n',
    'freesurfer 5.3': '# cvs_version $Id: mri_segstats.c,v 1.96.2.4 2012/11/14 nicks Exp $\n',
}
COLUMNS = 'Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange'
COLUMNS_OF_CORTEX = ('ThickAvg', 'SurfArea', 'GrayVol')
SURFACE = 'StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv FoldInd CurvInd'


def usual_volumes() -> dict[str, float]:
    """Volumes, mm3, of a person as there are many."""
    both = {f'{side}-{name}': v for name, v in PAIRS.items() for side in ('Left', 'Right')}
    return {**both, **SINGLE, **TOTALS}


def usual_cortex(regions=REGIONS) -> dict[str, tuple[float, float]]:
    """Thickness, mm, and area, mm2, of one hemisphere; ``cortex`` is all of it.

    A third number is the volume, mm3; without it, it is thickness times area.
    """
    found = {name: (2.2 + 0.02 * k, 900.0 + 50 * k) for k, name in enumerate(regions)}
    return {**found, 'cortex': (2.45, 88000.0)}


def aseg(volumes, version='freesurfer 7') -> str:
    """Return the text of an ``aseg.stats``; names as of the version."""
    named = dict(volumes)
    if version != 'freesurfer 7':
        for side in ('Left', 'Right'):
            named[f'{side}-Thalamus-Proper'] = named.pop(f'{side}-Thalamus')
    if version == 'freesurfer 5.3':
        for old in [name for name in named if 'CerebralWhite' in name]:
            named[old.replace('Cerebral', 'Cortical')] = named.pop(old)
    totals = {k: v for k, v in named.items() if k.endswith(('Vol', 'NotVent', 'Holes', 'TIV'))}
    lines = [
        f'# Measure {GROUPS.get(name, name.removesuffix("Vol"))}, {name}, what it is, '
        f'{value!r}, {UNITS.get(name, "mm^3")}'
        for name, value in totals.items()
    ]
    rows = [(name, value) for name, value in named.items() if name not in totals]
    return _table(VERSIONS[version], lines, COLUMNS, rows)


def fastsurfer(volumes, cortex) -> str:
    """Return the text of FastSurfer's ``aseg+DKT.stats``, which has no header measures."""
    rows = [(k, v) for k, v in volumes.items() if k not in TOTALS]
    rows += [(f'{side}-Cerebral-White-Matter', volumes[f'{h}CerebralWhiteMatterVol'])
             for side, h in (('Left', 'lh'), ('Right', 'rh'))]  # fmt: skip
    rows += [(f'ctx-{h}-{name}', value) for h in ('lh', 'rh') for name, value in cortex.items()]
    return _table('# generating_program segstats.py\n', [], COLUMNS, rows)


def aparc(cortex) -> str:
    """Return the text of an ``aparc.stats``; `cortex` as of `usual_cortex`."""
    thickness, area = cortex.get('cortex', (None, None))
    lines = []
    if thickness is not None:
        lines = [
            '# Measure Cortex, NumVert, Number of Vertices, 130000, unitless',
            f'# Measure Cortex, WhiteSurfArea, White Surface Total Area, {area!r}, mm^2',
            f'# Measure Cortex, MeanThickness, Mean Thickness, {thickness!r}, mm',
        ]
    body = ''.join(
        f'{name:40} 1200 {area!r} {volume[0] if volume else area * thick!r} {thick!r} '
        '0.5 0.11 0.02 10 1.1\n'
        for name, (thick, area, *volume) in cortex.items()
        if name != 'cortex'
    )
    head = '# Table of FreeSurfer cortical parcellation anatomical statistics \n# \n'
    return (
        head + VERSIONS['freesurfer 7'] + '\n'.join([*lines, f'# ColHeaders {SURFACE}\n']) + body
    )


def _table(version, lines, columns, rows) -> str:
    body = ''.join(
        f'{k:3} {k + 4:3} {round(value):6} {value!r:>12}  {name:30} 80.0 10.0 20.0 120.0 100.0 \n'
        for k, (name, value) in enumerate(rows, 1)
    )
    head = f'# Title Segmentation Statistics \n# \n{version}# subjectname sub-01\n'
    return (
        head
        + '\n'.join([*lines, f'# NRows {len(rows)} ', f'# ColHeaders  {columns} '])
        + '\n'
        + body
    )


def write_subject(root, name, *, version='freesurfer 7', volumes=None, sides=None, **more):
    """Write the stats of one subject folder of FreeSurfer; `sides`: hemisphere → cortex."""
    stats = root / name / 'stats'
    stats.mkdir(parents=True)
    (stats / 'aseg.stats').write_text(
        aseg({**usual_volumes(), **(volumes or {}), **more}, version)
    )
    cortex = usual_cortex()
    for side, own in ({'lh': cortex, 'rh': cortex} if sides is None else sides).items():
        (stats / f'{side}.aparc.stats').write_text(aparc(own))
    return root / name


def write_fastsurfer(root, name, *, surfaces=True):
    """Write the stats of one subject folder of FastSurfer 2."""
    stats = root / name / 'stats'
    stats.mkdir(parents=True)
    regions = [r for r in REGIONS if r not in NOT_IN_DKT]
    volume = dict.fromkeys(regions, 480000.0 / 2 / len(regions))
    (stats / 'aseg+DKT.stats').write_text(fastsurfer(usual_volumes(), volume))
    for side in ('lh', 'rh') if surfaces else ():
        (stats / f'{side}.aparc.DKTatlas.mapped.stats').write_text(aparc(usual_cortex(regions)))
    return root / name


def row_of_table(row):
    """Return volumes and, by hemisphere, cortex of a row of the shared table."""
    volumes = {k[5:]: float(v) for k, v in row.items() if k.startswith('aseg_')}
    totals = ('hdr_BrainSegVol-to-eTIV', 'hdr_MaskVol-to-eTIV')
    volumes |= {
        k[4:]: float(v) for k, v in row.items() if k.startswith('hdr_') and k not in totals
    }
    sides = {}
    for side in ('lh', 'rh'):
        sides[side] = {
            name: tuple(float(row[f'{side}_{name}_{k}']) for k in COLUMNS_OF_CORTEX)
            for name in REGIONS
        }
        whole = [float(row[f'{side}_hdr_Cortex_{k}']) for k in ('MeanThickness', 'WhiteSurfArea')]
        sides[side]['cortex'] = (whole[0], whole[1])
    return volumes, sides
