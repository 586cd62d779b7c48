"""CSV tables of SynthSeg and DLMUSE."""

import pytest

from bids_brainage.dataset.csv_tables import rows_of
from bids_brainage.errors import UnusableImageError

SYNTHSEG = (
    'subject,total intracranial,left cerebral white matter,left inferior lateral ventricle,'
    'left ventral DC,brain-stem,csf,right hippocampus\n'
    'sub-01_T1w,1500000.0,230000.5,300,4000,21000,280000,4100\n'
)
DLMUSE = 'MRID,702,DL_MUSE_Volume_48,MUSE-Volume-4\nsub-01_ses-2_T1w,1400000,3900.5,800\n'


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.csv'
        path.write_text(text)
        return path

    return write


def test_columns_of_synthseg_are_named_as_freesurfers(written):
    assert rows_of(written(SYNTHSEG), 'synthseg') == {
        'sub-01_T1w': {
            'eTIV': 1500000.0, 'Left-Cerebral-White-Matter': 230000.5,
            'Left-Inf-Lat-Vent': 300.0, 'Left-VentralDC': 4000.0, 'Brain-Stem': 21000.0,
            'csf-around-brain': 280000.0, 'Right-Hippocampus': 4100.0,
        }
    }  # fmt: skip


def test_columns_of_dlmuse_are_indices_however_they_are_written(written):
    assert rows_of(written(DLMUSE), 'dlmuse') == {
        'sub-01_ses-2_T1w': {'MUSE-702': 1400000.0, 'MUSE-48': 3900.5, 'MUSE-4': 800.0}
    }


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (DLMUSE.replace('800', 'much'), "'much' in the row of sub-01_ses-2_T1w"),
        (DLMUSE + DLMUSE.splitlines()[1], 'stands twice'),
        ('id,a,b\n1,2,3\n', 'expected the volumes of dlmuse'),
        ('', 'found the columns none'),
    ],
)
def test_other_tables_are_refused(written, text, said):
    with pytest.raises(UnusableImageError, match=said):
        rows_of(written(text), 'dlmuse')
