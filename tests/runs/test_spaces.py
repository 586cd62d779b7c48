"""Images in further spaces: which spaces there are, and where a landmark comes to lie."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.scan import Scan
from bids_brainage.names import derivative_path, side_file
from bids_brainage.outputs import StatusLog
from bids_brainage.outputs.files import write_json
from bids_brainage.preprocessing.itk_files import save_itk
from bids_brainage.preprocessing.template import DEFAULT_SPACE, find_template
from bids_brainage.preprocessing.transforms import SpatialTransform
from bids_brainage.runs.spaces import plan_spaces, write_spaces
from bids_brainage.workflows.spaces import OutputSpace

BETWEEN = np.array([[1.06, 0, 0, 4.0], [0, 1.06, 0, -6.0], [0, 0, 1.06, 3.0], [0, 0, 0, 1]])
"""Points of the default template → those of the template ``Mine``, RAS+ mm."""

TO_NATIVE = np.array([[0.0, -0.9, 0, 5.0], [0.9, 0, 0, 2.0], [0, 0, 0.95, -8.0], [0, 0, 0, 1]])
"""Default template → the person, who lies turned by 90 degrees."""

LANDMARK = np.array([-26.0, 14.0, 6.0])
"""Centre of the region that a map of the person marks, mm of the default template."""

ALIGNED_MM = 3.0
"""How far a registration of templates on 4 mm may be off."""


def at(affine, point):
    return affine[:3, :3] @ point + affine[:3, 3]


def save(path, data, affine, **side):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    write_json(side_file(path), side)


def blob(image, affine, centre):
    """A ball of 10 mm around a point."""
    index = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing='ij'), -1)
    away = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1)
    return np.exp(-((away / 10) ** 2)).astype(np.float32)


@pytest.fixture(scope='module')
def home(archive, fixed, tmp_path_factory):
    """A TemplateFlow archive with the default template and ``Mine`` at 4 mm."""
    root = tmp_path_factory.mktemp('home')
    shutil.copytree(archive / f'tpl-{DEFAULT_SPACE}', root / f'tpl-{DEFAULT_SPACE}')
    folder = root / 'tpl-Mine'
    folder.mkdir()
    affine = BETWEEN @ fixed.affine
    for name, data in (
        ('desc-brain_T1w', fixed.image.astype(np.float32)),
        ('desc-brain_mask', fixed.mask.astype(np.uint8)),
    ):
        nib.save(nib.Nifti1Image(data, affine), folder / f'tpl-Mine_res-4_{name}.nii.gz')
    (folder / 'template_description.json').write_text(
        json.dumps({'Name': 'Mine', 'Identifier': 'Mine', 'res': {'4': {'zooms': [4, 4, 4]}}})
    )
    return root


@pytest.fixture
def person(fixed, tmp_path):
    """A scan, whose truth is the template, with its images in an output dataset."""
    affine = TO_NATIVE @ fixed.affine
    raw = tmp_path / 'bids' / 'sub-1' / 'anat' / 'sub-1_T1w.nii.gz'
    save(raw, (fixed.image * 800).astype(np.float32), affine)
    relative = raw.relative_to(tmp_path / 'bids').as_posix()
    scan = Scan(raw, relative, '1', None, None, {'sub': '1'}, 'T1w', 'anat')
    out = tmp_path / 'out'

    def place(**entities):
        return out / derivative_path({'sub': '1', **entities}, 'anat')

    canonical = nib.as_closest_canonical(nib.Nifti1Image(fixed.mask.astype(np.uint8), affine))
    mask = np.asarray(canonical.dataobj)
    save(place(desc='brain', suffix='mask'), mask, canonical.affine)
    still = np.zeros((*fixed.mask.shape, 3), np.float32)
    transform = SpatialTransform(TO_NATIVE, still, still, fixed.affine)
    there = place(**{'from': 'T1w', 'to': DEFAULT_SPACE, 'suffix': 'xfm'})
    back = place(**{'from': DEFAULT_SPACE, 'to': 'T1w', 'suffix': 'xfm'})
    save_itk(there, transform.affine, still, fixed.affine, affine_first=False)
    save_itk(back, np.linalg.inv(transform.affine), still, fixed.affine, affine_first=True)
    template = {'space': DEFAULT_SPACE, 'res': '1'}
    labels = (fixed.mask * 2).astype(np.uint8)
    names = {'2': 'white matter'}
    save(place(**template, suffix='dseg'), labels, fixed.affine, LabelMap=names)
    marked = blob(mask, canonical.affine, at(TO_NATIVE, LANDMARK))
    named = {'space': 'T1w', 'model': 'm', 'desc': 'gradcam', 'suffix': 'saliency'}
    save(place(**named), marked, canonical.affine, Method='gradcam', Units='1')
    return SimpleNamespace(scan=scan, out=out, place=place, native=canonical)


def run_here(workflow, progress):
    workflow.run(plugin='Linear')
    return ''


def config_of(person, tmp_path):
    execution = SimpleNamespace(
        output_dir=person.out, work_dir=tmp_path / 'work', run_id='r', keep_work=False,
        md_only_boilerplate=False,
    )  # fmt: skip
    nipype = SimpleNamespace(nprocs=1, omp_nthreads=1, plugin='Linear')
    return SimpleNamespace(
        execution=execution, nipype=nipype, workflow=SimpleNamespace(sloppy=True)
    )


def mine(home):
    brain, t1w = (home / f'tpl-Mine/tpl-Mine_res-4_desc-brain_{s}.nii.gz' for s in ('mask', 'T1w'))
    return OutputSpace('Mine', '4', brain, t1w, brain, '4.24 x 4.24 x 4.24 mm')


def centre(path):
    """Centre of the voxels near the peak of a map, mm."""
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    near = np.argwhere(data > 0.7 * data.max())
    return at(image.affine, near.mean(axis=0))


def test_a_landmark_lies_where_the_templates_say_and_nothing_is_done_twice(
    home, person, tmp_path, monkeypatch
):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(home))
    coarse = find_template(home, resolution=2)
    spaces = (mine(home), OutputSpace(DEFAULT_SPACE, '2', coarse.mask, voxels='2 x 2 x 2 mm'))
    spaces += (OutputSpace(),)
    status = StatusLog(person.out, 'r')
    config = config_of(person, tmp_path)
    assert write_spaces(config, [person.scan], spaces, status, run_here) == 0

    other, same = {'space': 'Mine', 'res': '4'}, {'space': DEFAULT_SPACE, 'res': '2'}
    named = {'model': 'm', 'desc': 'gradcam', 'suffix': 'saliency'}
    assert np.linalg.norm(centre(person.place(**same, **named)) - LANDMARK) < 1.0
    shifted = at(BETWEEN, LANDMARK)
    assert np.linalg.norm(centre(person.place(**other, **named)) - shifted) < ALIGNED_MM
    assert np.linalg.norm(shifted - LANDMARK) > 2 * ALIGNED_MM

    truth = np.asarray(nib.load(mine(home).brain).dataobj) > 0
    made = np.asarray(nib.load(person.place(**other, desc='brain', suffix='mask')).dataobj) > 0
    assert 2 * (truth & made).sum() / (truth.sum() + made.sum()) > 0.93
    image = nib.load(person.place(desc='preproc', suffix='T1w'))
    assert np.allclose(image.affine, person.native.affine)
    assert not np.asarray(image.dataobj)[np.asarray(person.native.dataobj) == 0].any()
    labels = nib.load(person.place(suffix='dseg'))
    assert set(np.unique(np.asarray(labels.dataobj))) == {0, 2}

    side = json.loads(side_file(person.place(**other, suffix='dseg')).read_text())
    assert side['LabelMap'] == {'2': 'white matter'}
    assert side['Resolution'] == '4.24 x 4.24 x 4.24 mm'
    assert side['SpatialReference'] == 'https://github.com/templateflow/tpl-Mine'
    source = person.place(space=DEFAULT_SPACE, res='1', suffix='dseg').relative_to(person.out)
    assert side['Sources'] == ['bids:raw:sub-1/anat/sub-1_T1w.nii.gz', f'bids::{source}']
    text = (person.out / 'logs' / 'CITATION.md').read_text()
    assert 'also written in Mine:res-4' in text and 'registered to' in text

    assert list(plan_spaces(person.out, [person.scan], spaces)) == []
    os.utime(person.place(space='T1w', **named))  # a map was made anew
    assert [w.space.label for w in plan_spaces(person.out, [person.scan], spaces)] == [
        'Mine', DEFAULT_SPACE,
    ]  # fmt: skip


def test_a_scan_that_fails_is_told_and_one_without_images_is_passed_over(
    home, person, tmp_path, monkeypatch
):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(home))
    status = StatusLog(person.out, 'r')

    def stop(workflow, progress):
        return 'a worker process died'

    config = config_of(person, tmp_path)
    assert write_spaces(config, [person.scan], (OutputSpace(),), status, stop) == 1
    assert status.rows[-1]['message'] == 'T1w: a worker process died'
    person.place(desc='brain', suffix='mask').unlink()
    assert write_spaces(config, [person.scan], (OutputSpace(),), status, stop) == 0


def find(home, *spaces):
    """Call `find_spaces` in a process of its own: TemplateFlow reads its home once."""
    code = (
        'import sys; from pathlib import Path; from types import SimpleNamespace as N\n'
        'from bids_brainage.errors import BrainAgeError\n'
        'from bids_brainage.runs.spaces import find_spaces\n'
        'w = N(output_spaces=tuple(sys.argv[1:]))\n'
        'config = N(workflow=w, execution=N(work_dir=Path("."), offline=True))\n'
        'try:\n'
        '    print(*(space.name for space in find_spaces(config)))\n'
        'except BrainAgeError as error:\n'
        '    print(error.exit_code, error)\n'
    )
    return subprocess.run(
        [sys.executable, '-c', code, *spaces],
        env={**os.environ, 'TEMPLATEFLOW_HOME': str(home), 'NO_ET': '1',
             'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def test_spaces_are_those_of_the_archive(home):
    told = find(home, 'Mine:res-4', f'{DEFAULT_SPACE}:res-2', 'anat', DEFAULT_SPACE, 'T1w')
    assert told == f'Mine:res-4 {DEFAULT_SPACE}:res-2 T1w'


@pytest.mark.parametrize(
    ('space', 'code', 'words'),
    [
        ('MNI152NLin6Asym', '66', 'has no such space, only MNI152NLin2009aSym, Mine'),
        ('Mine:res-2', '66', 'no brain mask at 2 mm'),
        ('Mine:cohort-1', '2', 'does not accept a cohort'),
        ('Mine:res-native', '2', 'a resolution such as :res-2'),
    ],
)
def test_a_space_that_is_not_at_hand_says_what_to_do(home, space, code, words):
    told = find(home, space)
    assert told.startswith(f'{code} --output-spaces {space.partition(":")[0]}'), told
    assert words in told
    assert code == '2' or 'templateflow import api' in told
