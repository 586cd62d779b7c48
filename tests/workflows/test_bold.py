"""Raw BOLD series through Nipype to named derivatives and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import TR, identity_transform, make_phantom, template
from nipype.pipeline import engine as pe

from bids_brainage.pictures.svg import sanitise
from bids_brainage.preprocessing.bold.confounds import Denoising
from bids_brainage.preprocessing.template import Template
from bids_brainage.preprocessing.transforms import save_transform
from bids_brainage.tsv import read_tsv
from bids_brainage.workflows.bold import (
    CONNECTIVITY,
    init_bold_derivatives_wf,
    init_bold_report_wf,
    init_bold_wf,
)

REAL = Path(__file__).parents[3] / 'shared' / 'data' / 'real-bids' / 'sub-pumi001'
SPACE = 'MNI152NLin2009aSym'
METADATA = ('RepetitionTime', 'SliceTiming', 'TaskName')


def _run(folder, *, source, metadata, t1w, mask, transform, target_mask, sloppy, denoising):
    """Run the three workflows of one series; return the output dataset."""
    out = folder / 'out'
    target = Template(SPACE, 2, Path(t1w), Path(target_mask), Path(t1w))
    bold = init_bold_wf(target_template=target, sloppy=sloppy, denoising=denoising)
    node = bold.inputs.inputnode
    node.bold, node.metadata = str(source), metadata
    node.t1w, node.t1w_mask, node.transform = str(t1w), str(mask), str(transform)
    shared = {'source_file': str(source), 'output_dir': out, 'space': SPACE}
    save = init_bold_derivatives_wf(source_uri='bids:raw:x', metadata=metadata, **shared)
    report = init_bold_report_wf(**shared)
    report.inputs.inputnode.t1w, report.inputs.inputnode.t1w_mask = str(t1w), str(mask)
    workflow = pe.Workflow(name='whole', base_dir=str(folder / 'work'))
    saved = ('bold', 'mask', 'confounds', 'dictionary', 'slice_timing', *CONNECTIVITY)
    drawn = ('bold', 'mask', 'confounds', 'facts', 'correlation', 'aligned')
    workflow.connect(
        [
            (bold, save, [(f'outputnode.{f}', f'inputnode.{f}') for f in saved]),
            (bold, report, [(f'outputnode.{f}', f'inputnode.{f}') for f in drawn]),
        ]
    )
    workflow.run()
    return out


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp('raw')
    t1w, inside, affine = template()
    coarse = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(t1w, affine), folder / 't1w.nii.gz')
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), folder / 'mask.nii.gz')
    nib.save(
        nib.Nifti1Image(inside[::2, ::2, ::2].astype(np.uint8), coarse), folder / 'target.nii.gz'
    )
    save_transform(folder / 'transform.npz', identity_transform())
    source = folder / 'sub-01_task-rest_run-2_bold.nii.gz'
    nib.save(make_phantom(40, shape=(28, 34, 24), voxel_mm=6.0).image, source)
    return _run(
        folder,
        source=source,
        metadata={'RepetitionTime': TR, 'TaskName': 'rest'},
        t1w=folder / 't1w.nii.gz',
        mask=folder / 'mask.nii.gz',
        transform=folder / 'transform.npz',
        target_mask=folder / 'target.nii.gz',
        sloppy=True,
        denoising=Denoising(6, True, 'cosine'),
    )


def test_every_file_has_its_conventional_name(simulated):
    prefix = 'sub-01_task-rest_run-2'
    expected = {
        f'{prefix}_space-{SPACE}_res-2_desc-preproc_bold.nii.gz',
        f'{prefix}_space-{SPACE}_res-2_desc-preproc_bold.json',
        f'{prefix}_space-{SPACE}_res-2_desc-brain_mask.nii.gz',
        f'{prefix}_space-{SPACE}_res-2_desc-brain_mask.json',
        f'{prefix}_desc-confounds_timeseries.tsv',
        f'{prefix}_desc-confounds_timeseries.json',
    }
    for stat in ('mean_timeseries', 'pearsoncorrelation_relmat', 'fisherz_relmat'):
        stem = f'{prefix}_space-{SPACE}_atlas-power2011_stat-{stat}'
        expected |= {f'{stem}.tsv', f'{stem}.json'}
    assert {p.name for p in (simulated / 'sub-01/func').iterdir()} == expected
    regions = read_tsv(simulated / 'atlas-power2011_dseg.tsv')
    columns = json.loads((simulated / 'atlas-power2011_dseg.json').read_text())
    assert list(regions[0]) == list(columns)
    assert (simulated / 'atlas-power2011_description.json').is_file()


def test_side_files_say_what_was_done(simulated):
    func = simulated / 'sub-01/func'
    series = json.loads(next(func.glob('*preproc_bold.json')).read_text())
    assert series['RepetitionTime'] == TR
    assert series['TaskName'] == 'rest'
    assert series['SkullStripped'] is True
    assert series['SliceTimingCorrected'] is False
    assert 'no SliceTiming' in series['SliceTimingNotCorrected']
    matrix = json.loads(next(func.glob('*pearsoncorrelation*.json')).read_text())
    assert matrix['DegreesOfFreedom'] < 40
    assert len(matrix['RegionCoverage']) == 264
    assert matrix['Quality']['coregistration_overlap'] > 0.9
    columns = json.loads(next(func.glob('*confounds*.json')).read_text())
    header = read_tsv(next(func.glob('*confounds*.tsv')))[0]
    assert set(header) <= set(columns)


def test_tables_fit_each_other(simulated):
    func = simulated / 'sub-01/func'
    regions = [row['name'] for row in read_tsv(simulated / 'atlas-power2011_dseg.tsv')]
    matrix = read_tsv(next(func.glob('*pearsoncorrelation*.tsv')))
    assert [row['name'] for row in matrix] == regions
    assert list(matrix[0])[1:] == regions
    kept = json.loads(next(func.glob('*pearsoncorrelation*.json')).read_text())['VolumesKept']
    series = read_tsv(next(func.glob('*stat-mean_timeseries.tsv')))
    assert (len(series), list(series[0])) == (len(kept), regions)
    assert len(read_tsv(next(func.glob('*confounds*.tsv')))) == 40


def test_pictures_can_stand_in_a_page(simulated):
    figures = sorted((simulated / 'sub-01/figures').iterdir())
    assert [p.name.split('desc-')[1] for p in figures] == [
        'carpet_bold.svg', 'connectivity_bold.svg', 'coregistration_bold.svg'
    ]  # fmt: skip
    for path in figures:
        assert 'data:image/' in sanitise(path.read_text(), path.name)


def test_methods_name_the_steps():
    target = Template(SPACE, 2, Path('t'), Path(__file__), Path('g'))
    workflow = init_bold_wf(target_template=target)
    text = workflow.visit_desc()
    for word in ('Gauss-Newton', 'mutual', SPACE, 'cubic spline', 'Power 2011', '24 motion'):
        assert word in text


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason='development data not there')
def test_a_real_person_at_rest(tmp_path):
    from bids_brainage.preprocessing.brainmask import brain_mask_deepbet
    from bids_brainage.preprocessing.image import load_canonical
    from bids_brainage.preprocessing.registration import register
    from bids_brainage.preprocessing.template import find_template, install_packaged_template

    target = find_template(install_packaged_template(tmp_path / 'tf'), resolution=2)
    head, affine, _ = load_canonical(REAL / 'anat' / 'sub-pumi001_T1w.nii.gz')
    mask = brain_mask_deepbet(head, affine)
    fixed, inside = (nib.load(p) for p in (target.t1w, target.mask))
    brain = np.asarray(fixed.dataobj), np.asarray(inside.dataobj) > 0, fixed.affine
    transform, _ = register(*brain, head, mask, affine, sloppy=True)
    save_transform(tmp_path / 'transform.npz', transform)
    nib.save(nib.Nifti1Image(head, affine), tmp_path / 't1w.nii.gz')
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / 'mask.nii.gz')
    source = REAL / 'func' / 'sub-pumi001_task-rest_bold.nii.gz'
    metadata = json.loads((REAL / 'func' / 'sub-pumi001_task-rest_bold.json').read_text())
    out = _run(
        tmp_path,
        source=source,
        metadata={k: metadata[k] for k in METADATA},
        t1w=tmp_path / 't1w.nii.gz',
        mask=tmp_path / 'mask.nii.gz',
        transform=tmp_path / 'transform.npz',
        target_mask=target.mask,
        sloppy=True,
        denoising=None,
    )
    func = out / 'sub-pumi001' / 'func'
    side = json.loads(next(func.glob('*pearsoncorrelation*.json')).read_text())
    quality = side['Quality']
    # 20 volumes of 5 mm: too short for connectivity to mean much, and it says so
    assert side['QualityFlags'] == ['bold_few_volumes', 'bold_few_degrees_of_freedom']
    assert quality['n_volumes'] == 20
    assert quality['mean_fd'] < 0.3
    assert quality['coregistration_overlap'] > 0.92
    assert quality['share_regions_covered'] > 0.95
    assert json.loads(next(func.glob('*preproc_bold.json')).read_text())['SliceTimingCorrected']
    rows = read_tsv(next(func.glob('*pearsoncorrelation*.tsv')))
    matrix = np.array([[float(c) for c in list(r.values())[1:]] for r in rows])
    networks = np.array([r['network'] for r in read_tsv(out / 'atlas-power2011_dseg.tsv')])
    same = (networks[:, None] == networks) & ~np.eye(264, dtype=bool)
    assert matrix[same].mean() > matrix[networks[:, None] != networks].mean() + 0.02
