"""Pages escape what they show and demand what they name."""

import jinja2
import pytest

from bids_brainage.reports import page


@pytest.fixture
def templates(monkeypatch):
    """Templates of the test in the place of the packaged ones."""
    texts = {
        'words.html.j2': '{{ text }} {{ text|markup }} {{ w.years(3.25) }}\n',
        'loop.html.j2': '{% for x in xs %}\n{{ x }}\n{% endfor %}\n',
    }
    monkeypatch.setattr(jinja2, 'PackageLoader', lambda *place: jinja2.DictLoader(texts))


def test_texts_are_escaped_unless_marked_and_words_are_at_hand(templates):
    assert page.fill_template('words', text='<b>') == '&lt;b&gt; <b> 3.2 years\n'
    assert page.fill_template('loop', xs=[1, 2]) == '1\n2\n'


def test_a_page_does_not_hide_what_it_was_not_given(templates):
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        page.fill_template('words')


@pytest.mark.parametrize('name', ['participant', 'group', 'training'])
def test_the_packaged_templates_are_found_and_demand_their_content(name):
    with pytest.raises(jinja2.UndefinedError):
        page.fill_template(name)
