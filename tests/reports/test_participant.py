import re

import pytest
from html_page import read
from report_tree import MODELS, add_pictures, add_scan, add_volumes, make_tree, save_head

from bids_brainage.errors import MissingInputError
from bids_brainage.flags import flag_table
from bids_brainage.outputs.files import write_json, write_text
from bids_brainage.outputs.tables import write_sessions_summary
from bids_brainage.pictures.figures import plot_mask
from bids_brainage.preprocessing import quality
from bids_brainage.reports import wording
from bids_brainage.reports.participant import build_participant_report

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    root = make_tree(tmp_path_factory.mktemp('out'))
    images = save_head(tmp_path_factory.mktemp('head'))
    for stem, age, factor in (('sub-01_ses-1', 58.24, 1.0), ('sub-01_ses-2_run-1', 61.02, 3.5)):
        add_pictures(root, stem, images)
        add_volumes(root, stem, age, factor=factor)
    return root


@pytest.fixture(scope='module')
def page(tree):
    (path,) = build_participant_report(tree, '01')
    assert path == tree / 'sub-01.html'
    return read(path)


@pytest.mark.parametrize(
    'number',
    [
        '63.4 years',
        '55.1 to 71.7 years',
        '90 % interval',
        '58.2 years',
        '+5.2 years',
        '61.8 years',
        '1.3 years',
        '72.0 years',
        '63.7 to 80.2 years',
        '+10.9 years',
        '60.2',  # second model
        '+3.12 y',
        '−1.33 y',
        '+4.98 years',  # all regions together
        'ages 18 to 86 years',
        '(112 people), its mean error was 4.4 years',
        'guessing the median age would be wrong by 13.8 years',
        '0.912',
        '−0.41',
        'a3f1' * 16,
        'bids_brainage 0.1.0',
        '9f2c',
        'torch: 2.13.0',
        'https://doi.org/10.1016/j.media.2020.101871',
    ],
)
def test_page_states_the_number_with_its_unit(page, number):
    assert number.replace(' ', '') in page.text.replace(' ', '')


def test_result_comes_before_pictures_and_methods(page):
    place = 0
    for words in (
        'Over time',
        'Predicted age, sfcn.demo 63.4',
        'No age was predicted',
        'Which regions moved',
        'Brain mask',
        'Registration to the template',
        'Tissue map',
        'Contributions to the predicted age: sfcn.demo',
        'What the models were trained',
        'Methods and citations',
        'About this run',
        'ProcessingError: 312 mL',
    ):
        place = page.text.index(words, place)


def test_verdict_tells_error_from_difference(page):
    assert '5.2 years above the chronological age, within the error of the method' in page.text
    assert '10.9 years above the chronological age, more than the error of the meth' in page.text


def test_page_loads_nothing_and_runs_nothing(page):
    for tag, attributes in page.seen:
        assert tag not in {'script', 'link', 'iframe', 'object', 'embed', 'foreignobject', 'base'}
        assert not [name for name in attributes if name.startswith('on')]
        loaded = [attributes.get(key) for key in ('src', 'href', 'xlink:href', 'data')]
        for value in filter(None, loaded if tag != 'a' else []):
            assert value.startswith('data:image/')
    policy = [a['content'] for a in page.of('meta') if 'http-equiv' in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_links_lead_to_places_that_exist(page, tree):
    ids = {attributes['id'] for _, attributes in page.seen if 'id' in attributes}
    for attributes in page.of('a'):
        target = attributes['href']
        if target.startswith('#'):
            assert target[1:] in ids
        elif not target.startswith('https://doi.org/'):
            assert (tree / target).is_file()


def test_all_four_pictures_of_each_usable_scan_are_inside(page):
    titles = [text.strip() for text in page.words]
    for title in ('Brain mask', 'Registration to the template', 'Tissue map'):
        assert titles.count(title) == 2
    assert len([a for a in page.of('g') if a.get('class') == 'bba-scan']) == 2
    assert len({a['name'] for a in page.of('input') if a['type'] == 'radio'}) == 2


def test_pictures_and_charts_have_spoken_names(page):
    for attributes in page.of('svg'):
        named = 'aria-label' in attributes or 'viewbox' in attributes  # pictures carry a title
        assert named or attributes.get('aria-hidden') == 'true'


def test_ids_are_unique(page):
    ids = [attributes['id'] for _, attributes in page.seen if 'id' in attributes]
    assert len(ids) == len(set(ids))


def test_same_derivatives_give_the_same_bytes(tree):
    (path,) = build_participant_report(tree, 'sub-01')
    before = path.read_bytes(), path.stat().st_mtime_ns
    build_participant_report(tree, '01')
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_failed_scan_says_why(page):
    assert 'mask: Brain mask holds 312 mL, expected 800 to 2200 mL' in page.text
    assert 'sub-01/ses-2/log/20250102-120000_0f0e/crash-mask.txt' in page.text


def test_later_run_without_failure_clears_the_message(tmp_path):
    root = make_tree(tmp_path)
    source = 'bids:raw:sub-01/anat/sub-01_ses-2_run-2_T1w.nii.gz'
    write_text(
        root / 'logs' / '20250103-120000_aaaa' / 'status.tsv',
        f'source\tmodel\tstep\tstatus\tseconds\tmessage\n{source}\tn/a\tmask\tok\t3\tn/a\n',
    )
    (path,) = build_participant_report(root, '01')
    assert '312 mL, expected' not in read(path).text


def test_scan_that_failed_before_any_table_is_still_listed(tmp_path):
    add_scan(tmp_path, 'sub-01_run-1', age=50.0, predicted_age=51.0)
    write_text(
        tmp_path / 'logs' / '20250103-120000_aaaa' / 'status.tsv',
        'source\tmodel\tstep\tstatus\tseconds\tmessage\n'
        'bids:raw:sub-01/anat/sub-01_run-2_T1w.nii.gz\tn/a\tread\tfailed\t0\tFile is empty\n'
        'bids:raw:sub-011/anat/sub-011_T1w.nii.gz\tn/a\tread\tfailed\t0\tNot this person\n',
    )
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert 'Run 2 · T1w' in text
    assert 'read: File is empty' in text
    assert 'Not this person' not in text


def test_everything_missing_reads_as_not_available(tmp_path):
    add_scan(
        tmp_path,
        'sub-01',
        models={},
        predicted_age=44.44,
        sex=None,
        age_source=None,
        model_version=None,
    )
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert '44.4' in text
    assert 'Chronological age not recorded' in text
    assert 'the prediction cannot be compared with it' in text
    assert 'No measured accuracy is stored with this model.' in text
    for word in ('None', 'nan', 'Undefined'):
        assert not re.search(rf'\b{word}\b', text)


def test_censored_age_is_told_as_a_limit(tmp_path):
    add_scan(
        tmp_path,
        'sub-01',
        age=89.0,
        age_censored=True,
        predicted_age=80.0,
        interval_low=75.0,
        interval_high=85.0,
    )
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert 'at least 89.0 years' in text
    assert 'does not contain the age' not in text


def test_unknown_participant_names_the_folder(tmp_path):
    with pytest.raises(MissingInputError, match='sub-99'):
        build_participant_report(tmp_path, '99')


def test_hostile_text_stays_text(tmp_path):
    models = {
        'sfcn.demo': {
            **MODELS['sfcn.demo'],
            'ModelName': HOSTILE,
            'TrainingPopulation': HOSTILE,
            'Limitations': [HOSTILE],
            'Reference': HOSTILE,
            'Contributions': {HOSTILE: 1.0},
            'Validation': [{'dataset': HOSTILE, 'n': 3, 'mae': 1.0}],
        }
    }
    add_scan(
        tmp_path,
        'sub-01',
        models=models,
        side={HOSTILE: HOSTILE},
        sex=HOSTILE,
        qc_flag=HOSTILE,
        predicted_age=50.0,
        age=50.0,
    )
    write_text(tmp_path / 'logs' / 'CITATION.md', f'# {HOSTILE}\n\n[x](javascript:alert(1))\n')
    write_text(tmp_path / 'sub-01' / 'log' / 'r' / 'crash-x.txt', HOSTILE)
    write_json(tmp_path / 'dataset_description.json', {'GeneratedBy': [{'Name': HOSTILE}]})
    write_text(
        tmp_path / 'sub-01' / 'figures' / 'sub-01_desc-mask_T1w.svg', f'<svg>{HOSTILE}</svg>'
    )
    (path,) = build_participant_report(tmp_path, '01')
    page = read(path)
    assert not page.of('script')
    assert not page.of('img')
    assert 'alert(1)' in page.text
    assert not [a for a in page.of('a') if not a['href'].startswith(('#', 'sub-'))]
    assert 'This picture cannot be shown' in page.text


def test_many_sessions_get_a_page_each_and_an_overview(tmp_path):
    for number in range(1, 7):
        age = 60.0 + number
        add_scan(tmp_path, f'sub-01_ses-{number}', age=age, predicted_age=age + 2)
    write_sessions_summary(tmp_path, '01')
    paths = build_participant_report(tmp_path, '01', aggregate_sessions=4)
    assert [path.name for path in paths] == [
        'sub-01.html',
        *(f'sub-01_ses-{number}.html' for number in range(1, 7)),
    ]
    overview, third = read(paths[0]), read(paths[3])
    assert all(f'Session {number} · T1w' in overview.text for number in range(1, 7))
    assert 'models and images' not in overview.text
    assert 'Session 3 · T1w: models and images' in third.text
    assert 'Session 4' not in third.text
    for shown in (overview, third):
        assert 'Over time' in shown.text
        linked = {a['href'] for a in shown.of('a')}
        assert 'sub-01_ses-6.html' in linked
        assert all((tmp_path / link).exists() for link in linked if link.endswith('.html'))


def test_up_to_the_limit_all_sessions_share_one_page(tmp_path):
    for number in range(1, 5):
        add_scan(tmp_path, f'sub-01_ses-{number}', age=60.0, predicted_age=62.0)
    assert len(build_participant_report(tmp_path, '01', aggregate_sessions=4)) == 1
    assert len(build_participant_report(tmp_path, '01', aggregate_sessions=3)) == 5


def test_flag_texts_explain_in_words_and_order_by_severity(monkeypatch, tmp_path):
    texts = {
        'registration_poor': {
            'label': 'Poor registration',
            'explanation': 'The scan does not overlap the template.',
            'severity': 'stop',
            'advice': 'Look at the registration picture.',
        },
        'age_outside': {
            'label': 'Age outside',
            'explanation': 'Old.',
            'severity': 'note',
            'advice': '',
        },
    }
    monkeypatch.setattr(wording, 'flag_table', lambda: texts)
    flags = 'age_outside;registration_poor(0.61);never_heard_of'
    add_scan(tmp_path, 'sub-01', age=50.0, predicted_age=51.0, qc_flag=flags)
    (path,) = build_participant_report(tmp_path, '01')
    page = read(path)
    expected = (
        'Do not use: Poor registration (0.61)',
        'The scan does not overlap the template. Look at the registration picture.',
        'Caution: Never heard of',
        'Note: Age outside',
    )
    places = [page.text.index(words) for words in expected]
    assert places == sorted(places)
    assert 'Do not use without checking' in page.text
    assert [a for a in page.of('g') if a.get('class') == 'estimate doubtful']


def test_headline_is_the_model_with_the_smaller_measured_error(tmp_path):
    better = {**MODELS['volumes.ridge'], 'Validation': [{'dataset': 'x', 'n': 9, 'mae': 3.0}]}
    models = {'sfcn.demo': MODELS['sfcn.demo'], 'volumes.ridge': better}
    add_scan(tmp_path, 'sub-01', models=models, age=50.0, predicted_age=60.0)
    (path,) = build_participant_report(tmp_path, '01')
    assert 'Predicted age, volumes.ridge 56.8 years' in read(path).text


def test_an_error_on_few_or_simulated_people_does_not_make_the_headline(tmp_path):
    few = {**MODELS['sfcn.demo'], 'Validation': [
        {'dataset': 'all', 'n': 30, 'mae': 9.0}, {'dataset': 'one site', 'n': 3, 'mae': 1.0},
        {'dataset': 'generated', 'n': 900, 'mae': 0.5, 'simulated': True},
    ]}  # fmt: skip
    better = {**MODELS['volumes.ridge'], 'Validation': [{'dataset': 'x', 'n': 20, 'mae': 8.0}]}
    models = {'sfcn.demo': few, 'volumes.ridge': better}
    add_scan(tmp_path, 'sub-01', models=models, age=50.0, predicted_age=60.0)
    (path,) = build_participant_report(tmp_path, '01')
    assert 'Predicted age, volumes.ridge 56.8 years' in read(path).text


def test_a_consensus_makes_the_headline_and_says_of_what_it_is_made(tmp_path):
    checked = {**MODELS['volumes.ridge'], 'Validation': [{'dataset': 'x', 'n': 9, 'mae': 3.0}]}
    members = {'sfcn.demo': {'Weight': 0.4}, 'volumes.ridge': {'Weight': 0.6}}
    models = {'consensus': {'Members': members}, 'volumes.ridge': checked}
    estimate = {'predicted_age': 60.0, 'predicted_age_sd': 2.5}
    limits = {'interval_low': 45.0, 'interval_high': 75.0, 'interval_level': 0.9}
    add_scan(tmp_path, 'sub-01', models=models, model='consensus', **estimate, **limits)
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert 'Predicted age, consensus 60.0 years' in text
    assert 'SD between the models 2.5 years' in text
    assert 'Weighted mean of sfcn.demo and volumes.ridge.' in text
    assert 'contains the chronological age of' not in text


def test_reading_derivatives_imports_no_heavy_library():
    import subprocess
    import sys

    code = (
        'import sys, bids_brainage.reports.participant, bids_brainage.pictures.figures; '
        "sys.exit(bool({'torch', 'nibabel', 'scipy', 'matplotlib', 'pandas', 'jinja2', 'PIL'} "
        '& set(sys.modules)))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def table_after(page, title):
    """Return the words of the page from a title on."""
    return page.text[page.text.index(title) :]


def test_first_page_has_volumes_with_percentiles_and_curves_with_all_scans(page):
    text = page.text
    first = text.index('Ventricles')
    assert re.search(r'Ventricles [12]\d\.\d 1\.\d+ 5\d ', text[first : first + 60])
    assert re.search(r'Ventricles \d\d\.\d \d\.\d+ (> )?99 ', text[first + 60 :])
    assert 'Intracranial volume 15' in text
    charts = [a for a in page.of('svg') if a.get('class') == 'chart curve']
    assert len(charts) == 2 * 5
    assert all('58.2 years' in a['aria-label'] and '61.0 years' in a['aria-label'] for a in charts)
    marks = [a['class'] for a in page.of('circle') if a.get('class') in ('dot', 'other')]
    assert marks.count('other') == 10  # each chart marks the other scan, too
    assert 'other scans of this person' in text


@pytest.mark.parametrize(
    ('age', 'facts', 'reason'),
    [
        (50.0, {'Segmentation': {'WeightsSHA256': 'a' * 64}}, 'another version of the segm'),
        (50.0, {'SkullStripped': True}, 'came without skull'),
        (None, {}, 'the age is not known'),
        (95.0, {}, 'outside the ages of the curves'),
    ],
)
def test_volumes_that_cannot_be_compared_have_no_percentile(tmp_path, age, facts, reason):
    add_scan(tmp_path, 'sub-01', age=age, predicted_age=51.0)
    add_volumes(tmp_path, 'sub-01', age, **facts)
    (path,) = build_participant_report(tmp_path, '01')
    page = read(path)
    assert 'No percentiles: ' in page.text
    assert reason in page.text
    assert not [a for a in page.of('svg') if a.get('class') == 'chart curve']
    assert re.search(r'Brain \d{4} (\d\d\.\d|n/a) n/a', page.text)


def test_weights_that_changed_since_take_the_percentiles_away(tmp_path, monkeypatch):
    """A table made with the curves of its own weights stays, but is not drawn on others."""
    from bids_brainage.segmentation import norms

    add_scan(tmp_path, 'sub-01', age=50.0, predicted_age=51.0)
    add_volumes(tmp_path, 'sub-01', 50.0)
    newer = {**norms.load_curves(), 'weights_sha256': 'b' * 64}
    monkeypatch.setattr(norms, 'load_curves', lambda: newer)
    (path,) = build_participant_report(tmp_path, '01')
    assert 'another version of the segmentation' in read(path).text
    assert re.search(r'Brain \d{4} \d\d\.\d n/a', read(path).text)


def test_contributions_go_from_the_base_age_to_the_predicted_age(page):
    text = table_after(page, 'Which regions moved the prediction')
    base, end = re.search(
        r'Base age: [^0-9]*([\d.]+) years .*?Predicted age ([\d.]+) y', text
    ).groups()
    bars = [
        float(v.replace('−', '-'))
        for v in re.findall(
            r'([+−]\d+\.\d\d) y', text[text.index('Base age:') : text.index('Brain mask')]
        )
    ]
    assert end == '63.4'
    assert float(base) + sum(bars) == pytest.approx(63.41, abs=0.06)


def test_bars_have_one_scale_on_all_pages(tmp_path):
    widths = {}
    for name, years in (('01', 2.0), ('02', 8.0)):
        models = {'sfcn.demo': {**MODELS['sfcn.demo'], 'Contributions': {'Insula': years}}}
        add_scan(tmp_path, f'sub-{name}', models=models, age=50.0, predicted_age=51.0)
        (path,) = build_participant_report(tmp_path, name)
        bars = [a for a in read(path).of('rect') if a.get('class') == 'up']
        widths[years] = float(bars[0]['width'].rstrip('%'))
    assert widths[8.0] == pytest.approx(4 * widths[2.0])


def test_second_view_of_contributions_starts_at_the_mean_of_all_people(tmp_path):
    facts = {
        'BaseAge': 66.0, 'ReferenceAge': 60.0, 'Contributions': {'Insula': 4.0},
        'ContributionsFromMean': {'Insula': 15.0, 'Cerebellum': 5.0},
    }  # fmt: skip
    models = {'sfcn.demo': {**MODELS['sfcn.demo'], **facts}}
    add_scan(tmp_path, 'sub-01', models=models, age=60.0, predicted_age=70.0)
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert 'Base age: people of the same age (60.0 years) 66.0 years' in text
    assert 'Base age: the mean of all people the model knows 50.0 years' in text
    assert text.count('Predicted age 70.0 years') == 2


def test_page_of_a_failed_scan_shows_what_failed_and_says_nothing_of_the_model(tmp_path):
    images = save_head(tmp_path / 'head')
    root = tmp_path / 'out'
    add_scan(root, 'sub-01', models={}, age=61.0, status='failed')
    source = 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    out = root / 'sub-01' / 'figures' / 'sub-01_desc-mask_T1w.svg'
    plot_mask(images['t1w'], images['mask'], out)
    write_text(
        root / 'logs' / 'r' / 'status.tsv',
        'source\tmodel\tstep\tstatus\tseconds\tmessage\n'
        f'{source}\tn/a\tbrain mask\tfailed\t3\tn/a\n'
        f'{source}\tm\tresult\tfailed\tn/a\tBrain mask holds 312 mL\n',
    )
    (path,) = build_participant_report(root, '01')
    page = read(path)
    place = 0
    for words in (
        'No age was predicted Brain mask holds 312 mL',
        'The image, and the brain',
        'brain mask failed',
    ):
        place = page.text.index(words, place)
    assert len([a for a in page.of('image')]) == 1
    for words in ('No measured accuracy', 'Trained on', 'About the models', 'models and images'):
        assert words not in page.text


def test_checks_are_a_table_with_ranges(tmp_path):
    quality = {'border_cm2': 3.456, 'mask_ml': 870.0, 'overlap': 0.971, 'mask_method': 'deepbet'}
    add_scan(tmp_path, 'sub-01', age=50.0, predicted_age=51.0, side={'Quality': quality})
    (path,) = build_participant_report(tmp_path, '01')
    text = read(path).text
    assert 'Brain touching the edge of the image 3.46 cm² at most 12 cm² within' in text
    assert 'Volume of the brain mask 870 ml 900 to 2100 ml outside: Unusual brain size' in text
    assert 'template’s 0.971 Dice at least 0.94 Dice within' in text


def test_page_says_dataset_date_command_and_container_of_the_last_run(tmp_path):
    add_scan(tmp_path, 'sub-01', age=50.0, predicted_age=51.0)
    for run, image in (('20250102-120000_ff', 'old'), ('20260304-050607_aa', 'x:1.2')):
        write_text(
            tmp_path / 'sub-01' / 'log' / run / 'bids_brainage.toml',
            f'[environment]\npython = "3.11.7"\nplatform = "Linux"\ncontainer_type = "docker"\n'
            f'container_tag = "{image}"\ncommand = "bids_brainage /data /out participant"\n'
            f'[execution]\nbids_dir = "/data"\nrun_id = "{run}"\n',
        )
    (path,) = build_participant_report(tmp_path, '01')
    text = table_after(read(path), 'About this run')
    for words in (
        *('Dataset /data', 'Date 2026-03-04 05:06 UTC', 'docker, x:1.2', '3.11.7, Linux'),
        'Command bids_brainage /data /out participant',
    ):
        assert words in text
    assert 'docker, old' not in text


def test_every_measure_that_is_checked_has_a_name_in_the_table():
    checked = {flag for flag, _, _ in quality._CHECKS}
    numbers = {flag for flag in checked if flag_table()[flag]['unit'] != 'true or false'}
    assert numbers == {name for name, flag in flag_table().items() if 'measured' in flag}
