"""A small output dataset as the participant level leaves it, for the report tests."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bids_brainage.names import derivative_path, source_entities
from bids_brainage.outputs.files import write_json, write_text
from bids_brainage.outputs.tables import brainage_row, write_brainage, write_sessions_summary
from bids_brainage.pictures.figures import (
    plot_mask,
    plot_registration,
    plot_saliency,
    plot_segmentation,
)
from bids_brainage.pictures.summary import plot_summary

MODELS = {
    'sfcn.demo': {
        'ModelName': 'sfcn.demo',
        'ModelVersion': '1.0.0',
        'WeightsSHA256': 'a3f1' * 16,
        'TrainingPopulation': '1,240 healthy adults of three public data sets',
        'TrainingAgeRange': [18, 86],
        'Validation': [
            {
                'dataset': 'IXI, held out',
                'n': 112,
                'mae': 4.37,
                'bias': -0.41,
                'r': 0.912,
                'median_baseline_mae': 13.8,
                'method': 'held-out participants',
            }
        ],
        'License': 'Apache-2.0',
        'Reference': {'text': 'Peng et al. 2021', 'doi': '10.1016/j.media.2020.101871'},
        'Limitations': [
            'Trained on adults only: ages of children are meaningless.',
            'Not tested after surgery or stroke.',
        ],
        'Contributions': {
            'Lateral ventricles': 3.12,
            'Left hippocampus': 1.41,
            'Right hippocampus': 1.05,
            'Frontal lobe': 0.88,
            'Insula': 0.37,
            'Cerebellum': -0.52,
            'Occipital lobe': -1.33,
        },
    },
    'volumes.ridge': {
        'ModelName': 'volumes.ridge',
        'ModelVersion': '0.3',
        'TrainingPopulation': '3,000 people',
        'TrainingAgeRange': [20, 90],
    },
}


def head(shape: tuple[int, ...], zooms: tuple[float, ...]) -> dict[str, nib.Nifti1Image]:
    """Draw an ellipsoid brain in a skull: T1w, mask, tissues, signed map; same world size."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) * np.array(zooms) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
    x, y, z = np.moveaxis(grid @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 60) ** 2)
    wavy = radius + 0.04 * np.sin(x / 5) * np.cos(y / 6) * np.sin(z / 5)
    tissue = np.select([wavy < 0.2, wavy < 0.75, wavy < 0.93, radius < 1], [3, 2, 1, 3], 0)
    t1w = np.choose(tissue, [4.0, 90.0, 140.0, 35.0])
    t1w[(radius > 1.08) & (radius < 1.18)] = 160.0
    signed = np.where(tissue == 1, 0.004 * np.sin(x / 25) * np.cos(y / 30), 0.0)
    volumes = {'t1w': t1w, 'mask': tissue > 0, 'dseg': tissue, 'map': signed}
    return {
        name: nib.Nifti1Image(data.astype(np.float32), affine) for name, data in volumes.items()
    }


def save_head(folder: Path, zooms: tuple[float, ...] = (2.0, 2.0, 2.0)) -> dict[str, Path]:
    """Write the images of `head`, 170 x 200 x 160 mm, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = tuple(
        round(extent / zoom) for extent, zoom in zip((170, 200, 160), zooms, strict=True)
    )
    paths = {}
    for name, image in head(shape, zooms).items():
        paths[name] = folder / f'{name}.nii.gz'
        nib.save(image, paths[name])
    return paths


def add_scan(
    root: Path, stem: str, *, models: dict | None = None, side: dict | None = None, **values
) -> None:
    """Write the prediction table of one scan; two models with an age, none when failed."""
    entities = source_entities(stem)
    common = {
        'participant_id': f'sub-{entities["sub"]}',
        'session_id': f'ses-{entities["ses"]}' if 'ses' in entities else None,
        'run': entities.get('run'),
        'source': f'bids:raw:sub-{entities["sub"]}/anat/{stem}_T1w.nii.gz',
        'modality': 'T1w',
        'sex': 'F',
        'age_source': 'sessions.tsv',
        'status': 'ok',
        **values,
    }
    main = brainage_row(**{'model': 'sfcn.demo', 'model_version': '1.0.0', **common})
    rows = [main]
    if common['status'] == 'ok' and main['predicted_age'] is not None:
        other = {**common, 'predicted_age': main['predicted_age'] - 3.2, 'qc_flag': None}
        for name in ('interval_low', 'interval_high', 'interval_level', 'predicted_age_sd'):
            other[name] = None
        other['predicted_age_corrected'] = None
        rows.append(brainage_row(**{**other, 'model': 'volumes.ridge', 'model_version': '0.3'}))
    path = root / derivative_path({**entities, 'suffix': 'brainage'}, 'anat')
    write_brainage(
        path,
        rows,
        models=MODELS if models is None else models,
        metadata={'Device': 'cpu', 'SoftwareVersions': {'torch': '2.13.0'}, **(side or {})},
    )


def add_pictures(root: Path, stem: str, images: dict[str, Path]) -> None:
    """Draw all pictures of one scan."""
    entities = {**source_entities(stem), 'suffix': 'T1w'}

    def out(desc: str, **more: str) -> Path:
        return root / derivative_path({**entities, 'desc': desc, **more}, 'figures')

    plot_mask(images['t1w'], images['mask'], out('mask'))
    plot_registration(images['t1w'], images['t1w'], out('registration'), images['mask'])
    plot_segmentation(images['t1w'], images['dseg'], out('segmentation'))
    target = out('contributions', model='sfcndemo')
    shown = {'unit': 'years per voxel', 'signed': True}
    plot_saliency(images['t1w'], images['map'], target, mask=images['mask'], **shown)
    brief = out('summary', model='sfcndemo')
    plot_summary(images['t1w'], images['mask'], brief, images['map'], **shown)


def add_volumes(
    root: Path, stem: str, age: float | None, sex: str = 'F', *, factor: float = 1.0, **facts
) -> None:
    """Write the volumes of one scan: the median of its age, the ventricles times `factor`."""
    from bids_brainage.outputs.files import write_tsv
    from bids_brainage.outputs.tables import column_names, data_dictionary
    from bids_brainage.segmentation import norms
    from bids_brainage.segmentation.regions import load_regions
    from bids_brainage.segmentation.weights import segmentation_facts

    at = 50.0 if age is None else age
    regions = {}
    for region in load_regions():
        line = norms.centile_lines(region.name, sex)[50]
        regions[region.name] = 1500 * min(line, key=lambda point: abs(point[0] - at))[1]
    regions['lateral_ventricle'] *= factor
    side = {'Segmentation': segmentation_facts(), 'SkullStripped': False, **facts}
    reason = norms.why_not(side['Segmentation'], age, skull_stripped=side['SkullStripped'])
    rows = norms.volume_rows(regions, age, sex, known=not reason, whole=not side['SkullStripped'])
    path = root / derivative_path({**source_entities(stem), 'suffix': 'volumes'}, 'anat')
    write_tsv(path, rows, column_names('volumes'))
    write_json(
        path.with_suffix('.json'),
        {**data_dictionary('volumes'), **side, 'WithoutPercentiles': reason},
    )


def make_tree(root: Path) -> Path:
    """Write participant 01: a good scan, a flagged scan, and a failed one."""
    write_json(
        root / 'dataset_description.json',
        {
            'Name': 'Brain age estimates',
            'BIDSVersion': '1.11.1',
            'DatasetType': 'derivative',
            'GeneratedBy': [
                {'Name': 'bids_brainage', 'Version': '0.1.0', 'ConfigurationHash': '9f2c'}
            ],
        },
    )
    write_text(
        root / 'logs' / 'CITATION.md',
        '# Methods and citations\n\nThe T1w image was corrected for bias with *N4* '
        '([Tustison 2010](https://doi.org/10.1109/TMI.2010.2046908)).\n\n'
        '## References\n\n- Tustison 2010\n- Peng 2021\n',
    )
    add_scan(
        root,
        'sub-01_ses-1',
        age=58.24,
        predicted_age=63.41,
        interval_low=55.12,
        interval_high=71.7,
        interval_level=0.9,
        predicted_age_corrected=61.83,
        predicted_age_sd=1.27,
        in_training_range=True,
    )
    add_scan(
        root,
        'sub-01_ses-2_run-1',
        age=61.02,
        predicted_age=71.96,
        interval_low=63.67,
        interval_high=80.25,
        interval_level=0.9,
        predicted_age_corrected=70.1,
        qc_flag='registration_overlap_low;mask_disagreement',
        in_training_range=True,
    )
    add_scan(root, 'sub-01_ses-2_run-2', age=61.02, status='failed')
    run = '20250102-120000_0f0e'
    write_text(
        root / 'logs' / run / 'status.tsv',
        'source\tmodel\tstep\tstatus\tseconds\tmessage\n'
        'bids:raw:sub-01/anat/sub-01_ses-2_run-2_T1w.nii.gz\tn/a\tmask\tfailed\t3.2\t'
        'Brain mask holds 312 mL, expected 800 to 2200 mL; look at the image\n',
    )
    write_text(
        root / 'sub-01' / 'ses-2' / 'log' / run / 'crash-mask.txt',
        'Node: mask\nTraceback (most recent call last):\n  ...\nProcessingError: 312 mL\n',
    )
    write_sessions_summary(root, '01')
    return root
