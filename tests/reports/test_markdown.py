import pytest

from bids_brainage.reports.markdown import to_html


@pytest.mark.parametrize(
    ('source', 'html'),
    [
        ('# Title #', '<h3>Title</h3>'),
        ('### Deep\ntext', '<h5>Deep</h5>\n<p>text</p>'),
        ('one\ntwo\n\nthree', '<p>one two</p>\n<p>three</p>'),
        ('- a\n- b\n  more', '<ul><li>a</li><li>b more</li></ul>'),
        ('1. a\n2. b', '<ol><li>a</li><li>b</li></ol>'),
        ('**bold** and *thin*', '<p><strong>bold</strong> and <em>thin</em></p>'),
        ('`a_b_c` and snake_case_name', '<p><code>a_b_c</code> and snake_case_name</p>'),
        ('[x](https://doi.org/10.1/a_b_c)', '<p><a href="https://doi.org/10.1/a_b_c">x</a></p>'),
        ('<https://a.org/b>', '<p><a href="https://a.org/b">https://a.org/b</a></p>'),
        ('[`x`](https://a.org)', '<p><a href="https://a.org"><code>x</code></a></p>'),
        ('at https://a.org/b.', '<p>at <a href="https://a.org/b">https://a.org/b</a>.</p>'),
        ('a < b & c', '<p>a &lt; b &amp; c</p>'),
        ('[x](javascript:alert)', '<p>[x](javascript:alert)</p>'),
        ('<b>no</b>', '<p>&lt;b&gt;no&lt;/b&gt;</p>'),
        ('before <!-- hidden\n\nnote --> after', '<p>before  after</p>'),
        ('', ''),
    ],
)
def test_markdown_to_html(source, html):
    assert to_html(source) == html


def test_link_address_cannot_leave_its_quotes():
    assert '" onclick' not in to_html('[x](https://a.org/"onclick=alert)')
    assert '&quot;onclick' in to_html('[x](https://a.org/"onclick=alert)')
