"""A page as its reader sees it: text, elements, nothing left open."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {'meta', 'input', 'br', 'link', 'img', 'hr'}


class Page(HTMLParser):
    """Check nesting and collect what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f'never closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r'\s+', ' ', ' '.join(self.words))

    def of(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding='utf-8'))
