"""Stats files of all versions give the same measures."""

import math

import pytest
from stats_tree import (
    NOT_IN_DKT,
    REGIONS,
    TOTALS,
    VERSIONS,
    aparc,
    aseg,
    fastsurfer,
    usual_cortex,
    usual_volumes,
)

from bids_brainage.dataset.stats_files import read_cortex, read_volumes, version_of
from bids_brainage.errors import UnusableImageError


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / 'file.stats'
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize('version', VERSIONS)
def test_names_of_all_versions_become_those_of_the_last(written, version):
    path = written(aseg(usual_volumes(), version))
    assert read_volumes(path) == usual_volumes()
    assert version_of(path)


def test_cortex_of_a_hemisphere(written):
    found = read_cortex(written(aparc(usual_cortex())), 'rh')
    assert len(found) == 3 * len(REGIONS) + 2
    assert found['rh-insula-thickness'] == usual_cortex()['insula'][0]
    assert found['rh-insula-volume'] == math.prod(usual_cortex()['insula'])
    assert found['rh-cortex-area'] == 88000.0


def test_whole_of_a_hemisphere_without_header_is_the_sum_and_the_mean(written):
    two = {'insula': (3.0, 100.0), 'cuneus': (2.0, 300.0)}
    found = read_cortex(written(aparc(two)), 'lh')
    assert found['lh-cortex-area'] == 400.0
    assert found['lh-cortex-thickness'] == pytest.approx(2.25)  # weighted by area


def test_fastsurfer_without_header_measures_sums_up_its_structures(written):
    volumes = usual_volumes()
    regions = [name for name in REGIONS if name not in NOT_IN_DKT]
    found = read_volumes(written(fastsurfer(volumes, dict.fromkeys(regions, 7000.0))))
    assert found['lhCortexVol'] == pytest.approx(7000.0 * len(regions))
    assert found['rhCerebralWhiteMatterVol'] == volumes['rhCerebralWhiteMatterVol']
    fluid = ('Lateral-Ventricle', 'Inf-Lat-Vent', 'choroid-plexus', 'vessel')
    left_out = {f'{side}-{name}' for side in ('Left', 'Right') for name in fluid}
    left_out |= {'3rd-Ventricle', '4th-Ventricle', '5th-Ventricle', 'CSF', 'Optic-Chiasm'}
    tissue = sum(v for k, v in volumes.items() if k not in left_out | set(TOTALS))
    tissue += volumes['lhCerebralWhiteMatterVol'] + volumes['rhCerebralWhiteMatterVol']
    assert found['BrainSegVolNotVent'] == pytest.approx(tissue + 14000.0 * len(regions))
    assert 'eTIV' not in found


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'found 0 rows'),
        ('# ColHeaders Index SegId\n1 2 3\n', 'line 2 is not what FreeSurfer writes'),
        ('# Measure BrainSeg, BrainSegVol, what, many, mm^3\n', 'line 1 is not'),
        (aparc(usual_cortex()), 'expected the volumes of an aseg.stats'),
    ],
)
def test_damaged_and_foreign_files_are_refused(written, text, said):
    with pytest.raises(UnusableImageError, match=said):
        read_volumes(written(text.replace('ThickAvg', 'Volume_mm3')))


def test_volumes_are_no_cortex(written):
    with pytest.raises(UnusableImageError, match='columns SurfArea and ThickAvg'):
        read_cortex(written(aseg(usual_volumes())), 'lh')
