"""Group explanation maps: known maps on disk, their means, table, pictures and gaps."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.inference.saliency.group import (
    average_anatomy,
    average_maps,
    region_means,
    strongest,
)
from bids_brainage.outputs.files import write_json
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.pictures.svg import sanitise
from bids_brainage.reports.group_maps import Cut, draw_group_map
from bids_brainage.runs import group_maps
from bids_brainage.runs.group import run_group
from bids_brainage.runs.group_maps import choose_maps
from bids_brainage.tsv import read_tsv

SHAPE = (24, 28, 22)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
AFFINE[:3, 3] = (-92, -124, -72)
SPACE = 'space-MNI152NLin2009aSym_res-1'


def volume(scale=1.0, sign=1.0):
    """Return a map that falls from its centre; with values in the whole brain."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing='ij'), -1)
    distance = np.linalg.norm(grid - np.array([12, 9, 10]), axis=-1)
    return (sign * scale * np.maximum(0, 9 - distance)).astype(np.float32)


def add_person(root, name, age, scale=1.0, status='ok', session=None, model='net.a'):
    """Write the prediction table, map and T1w image of one scan."""
    stem = f'sub-{name}' + (f'_ses-{session}' if session else '')
    home = root / f'sub-{name}' / (f'ses-{session}' if session else '') / 'anat'
    home.mkdir(parents=True, exist_ok=True)
    row = brainage_row(
        participant_id=f'sub-{name}',
        session_id=f'ses-{session}' if session else None,
        source=f'bids:raw:{home.relative_to(root)}/{stem}_T1w.nii.gz',
        modality='T1w',
        model=model,
        age=age,
        predicted_age=None if status != 'ok' else 50.0,
        status=status,
    )
    write_brainage(home / f'{stem}_brainage.tsv', [row])
    name = f'{stem}_{SPACE}_model-neta_desc-contribution_saliency'
    nib.save(nib.Nifti1Image(volume(scale, -1), AFFINE), home / f'{name}.nii.gz')
    write_json(home / f'{name}.json', {'Method': 'contribution', 'Units': 'year'})
    nib.save(nib.Nifti1Image(volume(scale), AFFINE), home / f'{stem}_space-T1w_saliency.nii.gz')
    t1w = nib.Nifti1Image(1000 * scale * (volume() > 0), AFFINE)
    nib.save(t1w, home / f'{stem}_{SPACE}_desc-preproc_T1w.nii.gz')


def run(root, *options):
    (root / 'bids').mkdir(exist_ok=True)
    arguments = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    return run_group(parse([*arguments, *options], {}))


@pytest.fixture
def people(tmp_path):
    out = tmp_path / 'out'
    for name, age, scale in (('1', 60.0, 1.0), ('2', 69.9, 3.0), ('3', 70.0, 5.0)):
        add_person(out, name, age, scale)
    add_person(out, '1', 63.0, 100.0, session='later')
    add_person(out, '4', 65.0, 100.0, status='failed')
    return tmp_path


def table_of(*rows):
    names = ('participant_id', 'source', 'model', 'age', 'status')
    return pd.DataFrame(rows, columns=names, dtype=object)


def test_mean_of_the_strongest_fifth(people):
    assert run(people) == 0
    out = people / 'out'
    name = f'group_age-60to70_{SPACE}_model-neta_desc-contribution_saliency'
    found = np.asarray(nib.load(out / f'{name}.nii.gz').dataobj)
    one = volume(1.0, -1)
    kept = np.where(np.abs(one) >= np.quantile(np.abs(one), 0.8), one, 0)
    np.testing.assert_allclose(found, 2 * kept, atol=1e-5)
    side = json.loads((out / f'{name}.json').read_text())
    assert (side['NumberOfPeople'], side['Units']) == (2, 'year')
    assert {k: v['Index'] for k, v in side['Slices'].items()} == {
        'axial': 10,
        'coronal': 9,
        'sagittal': 12,
    }
    assert side['Slices']['axial']['Position'] == 8.0
    assert side['Slices']['axial']['Area'] == np.count_nonzero(kept[:, :, 10])
    assert 'desc-contribution_saliency.nii.gz' in side['Sources'][0]
    anatomy = nib.load(out / f'group_age-60to70_{SPACE}_T1w.nii.gz')
    assert set(np.unique(anatomy.dataobj)) == {0, 1}


def test_table_of_regions_and_page(people):
    run(people)
    rows = read_tsv(people / 'out' / 'group_saliency.tsv')
    assert {(r['age_bin'], r['n']) for r in rows} == {('60-70', '2'), ('70-80', '1')}
    old = {r['structure']: r for r in rows if r['age_bin'] == '70-80'}
    young = {r['structure']: r for r in rows if r['age_bin'] == '60-70'}
    assert len(old) == 15
    known = [k for k in old if old[k]['mean_abs'] != 'n/a']
    for name in known:
        assert float(old[name]['mean_abs']) == pytest.approx(2.5 * float(young[name]['mean_abs']))
        assert float(old[name]['mean_signed']) == -float(old[name]['mean_abs'])
        assert old[name]['sd_abs'] == 'n/a' != young[name]['sd_abs']
    strongest_first = sorted(known, key=lambda k: int(old[k]['rank']))
    sizes = [float(old[name]['mean_abs']) for name in strongest_first]
    assert sizes == sorted(sizes, reverse=True)
    page = (people / 'out' / 'group.html').read_text()
    assert page.count('Explanation map, ') == 2
    assert 'table-saliency' in page
    side = json.loads((people / 'out' / 'group_saliency.json').read_text())
    assert all(side[column]['Description'] for column in rows[0])


def test_a_second_run_changes_nothing_and_none_removes_the_maps(people):
    out = people / 'out'
    run(people)
    before = {p.name: p.stat().st_mtime_ns for p in out.glob('group*')}
    assert len(before) == 13 + 2 + 2 * 5
    run(people)
    assert before == {p.name: p.stat().st_mtime_ns for p in out.glob('group*')}
    run(people, '--saliency', 'gradcam')
    assert not list(out.glob('group_age*')) and not list(out.glob('group_saliency*'))
    run(people, '--saliency', 'none')
    assert len(list(out.glob('group*'))) == 13
    assert 'table-saliency' not in (out / 'group.html').read_text()


def test_a_damaged_map_costs_only_itself(people):
    name = f'sub-2_{SPACE}_model-neta_desc-contribution_saliency.nii.gz'
    (people / 'out' / 'sub-2' / 'anat' / name).write_bytes(b'damaged')
    other = people / 'out' / 'sub-3' / 'anat' / name.replace('sub-2', 'sub-3')
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), AFFINE), other)
    assert run(people) == 1
    rows = read_tsv(people / 'out' / 'group_saliency.tsv')
    assert {(r['age_bin'], r['n']) for r in rows} == {('60-70', '1')}
    lost = read_tsv(people / 'out' / 'group_exclusions.tsv')
    assert [r['participant_id'] for r in lost if r['analysis'] == 'saliency'] == ['sub-2', 'sub-3']
    assert str(people) not in (people / 'out' / 'group_exclusions.tsv').read_text()


def test_reading_is_bounded(monkeypatch):
    monkeypatch.setattr(group_maps, 'MAX_PEOPLE', 3)
    names = [f'sub-{k}/anat/sub-{k}' for k in range(9)]
    rows = [(f'sub-{k}', f'bids:raw:{x}_T1w.nii.gz', 'a.b', str(20 + k), 'ok')
            for k, x in enumerate(names)]  # fmt: skip
    maps = [f'{x}_{SPACE}_model-ab_desc-gradcam_saliency.nii.gz' for x in names]
    (group,) = choose_maps(table_of(*rows), maps, None)
    assert (group.age_bin, group.n_available, len(group.paths)) == ('20-30', 9, 3)
    assert [path.split('/')[0] for path in group.paths] == ['sub-0', 'sub-4', 'sub-8']
    assert choose_maps(table_of(*rows), maps, ()) == []
    assert len(choose_maps(table_of(*rows), maps, ('gradcam',))) == 1
    assert choose_maps(table_of(*rows), maps, ('guided_backprop',)) == []


def test_who_is_left_out():
    rows = [
        ('sub-1', 'bids:raw:sub-1/anat/sub-1_T1w.nii.gz', 'a.b', None, 'ok'),
        ('sub-2', 'bids:raw:sub-2/anat/sub-2_T1w.nii.gz', 'a.b', '30', 'failed'),
        ('sub-3', 'bids:raw:sub-3/anat/sub-3_T1w.nii.gz', 'a.b', '89', 'ok'),
    ]
    maps = [f'sub-{k}/anat/sub-{k}_{SPACE}_model-ab_desc-x_saliency.nii.gz' for k in (1, 2, 3)]
    table = table_of(*rows).assign(age_censored=[None, None, 'true'])
    assert choose_maps(table, maps, None) == []


def test_sign_and_ties_of_the_strongest():
    values = np.zeros((10, 1, 1), np.float32)
    values[:3, 0, 0] = (-5, 4, 0.5)
    assert strongest(values)[:, 0, 0].tolist() == [-5, 4] + [0] * 8
    assert not strongest(np.zeros((4, 4, 4), np.float32)).any()


def test_means_need_one_grid():
    atlas = np.zeros((2, 2, 2), np.uint8)
    atlas[0] = 1
    with pytest.raises(UnusableImageError, match='found none'):
        average_maps([], atlas, 1)
    with pytest.raises(UnusableImageError, match=r'shape \(2, 2, 2\), found \(3, 3, 3\)'):
        average_maps([np.zeros((3, 3, 3))], atlas, 1)
    with pytest.raises(UnusableImageError, match='Group anatomy'):
        average_anatomy([np.zeros((3, 3, 3))], (2, 2, 2))
    means = region_means(np.arange(8.0).reshape(2, 2, 2), atlas, 2)
    assert means[0] == 1.5 and np.isnan(means[1])
    assert not average_anatomy([], (2, 2, 2)).any()


def test_the_picture_shows_the_chosen_slices():
    cuts = {v: Cut(a, 10, 8.0) for v, a in (('axial', 2), ('coronal', 1), ('sagittal', 0))}
    drawn = draw_group_map(volume(sign=-1), volume(), cuts, 'year', 'Map & more')
    assert drawn.count('<image') == 4
    assert '+7.6 year (older)' in drawn and 'Map &amp; more' in drawn
    assert sanitise(drawn).startswith('<svg')
    empty = draw_group_map(np.zeros(SHAPE), np.zeros(SHAPE), cuts, 'year', 'nothing')
    assert 'zero everywhere' in empty


def test_reports_only_is_refused_with_advice(people):
    with pytest.raises(OptionError, match='without this option'):
        run(people, '--reports-only')
