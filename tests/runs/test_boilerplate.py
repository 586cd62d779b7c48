"""The methods text of a run that is not done."""

import nibabel as nib
import numpy as np
from program import run


def test_methods_are_written_and_nothing_is_processed(tmp_path):
    place = tmp_path / 'bids' / 'sub-01' / 'anat'
    place.mkdir(parents=True)
    data = np.random.default_rng(0).uniform(1, 100, (30, 36, 28)).astype('f4')
    nib.save(nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1])), place / 'sub-01_T1w.nii.gz')
    (tmp_path / 'bids' / 'dataset_description.json').write_text(
        '{"Name": "n", "BIDSVersion": "1.10.0"}'
    )
    options = ('--boilerplate-only', '--md-only-boilerplate', '--models', 'volumes.lifespan')
    done = run('bids', 'out', 'participant', '-w', 'work', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logs = tmp_path / 'out' / 'logs'
    assert done.stdout.strip() == str(logs / 'CITATION.md')
    text = (logs / 'CITATION.md').read_text()
    assert 'Its brain was extracted with deepbet' in text
    assert 'volumes.lifespan (version' in text
    assert 'volumes.adults' not in text
    assert not [path for path in logs.iterdir() if path.suffix in ('.html', '.bib')]
    assert not list((tmp_path / 'out').rglob('*_brainage.tsv'))
    done = run('bids', 'out', 'participant', '-w', 'work', *options[:1], cwd=tmp_path)
    assert 'volumes.adults (version' in (logs / 'CITATION.md').read_text()
    assert (logs / 'CITATION.html').is_file()
    assert (logs / 'CITATION.bib').is_file()
