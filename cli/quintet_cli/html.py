"""HTML to plain text: paragraphs kept, what no reader sees dropped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_PARAGRAPHS = _HEADINGS | frozenset(
    """address article aside blockquote body details dialog div dl fieldset figcaption figure
    footer form header hr main nav ol p pre section summary table ul""".split()
)
_LINES = frozenset({"br", "li", "tr", "dt", "dd", "caption", "option", "thead", "tbody"})
_CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"[ \t\r\n\f]+")


def text_of(html: str) -> tuple[str, str]:
    """Return the title and the text of an HTML document.

    The title is that of `<title>`, else of the first heading, else "". In the
    text, paragraphs are parted by an empty line, list items, table rows and line
    breaks by a newline, cells by a tab; `<pre>` keeps its white space.
    """
    parser = _TextParser()
    parser.feed(html)
    parser.close()
    title = _SPACE.sub(" ", parser.title or parser.heading).strip()
    return title, re.sub(r"\n{3,}", "\n\n", "".join(parser.pieces)).strip()


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.title = ""
        self.heading = ""
        self._unseen: list[str] = []
        self._in_title = False
        self._in_heading = ""
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN or self._unseen:
            # Nested ones of the same name are counted; others inside are unseen anyway.
            if tag in _UNSEEN and (not self._unseen or self._unseen[0] == tag):
                self._unseen.append(tag)
            return
        if tag in _PARAGRAPHS:
            # It also ends a title or heading that was left open.
            self._in_title = False
            self._in_heading = tag if tag in _HEADINGS and not self.heading else ""
        elif tag == "title":
            self._in_title = not self.title
        if tag in _CELLS and self.pieces and not self.pieces[-1].endswith("\n"):
            self.pieces.append("\t")
        self._break(tag)
        self._preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # "<svg/>" ends at once; a void element such as "<br/>" has no end.
        self.handle_starttag(tag, attrs)
        if tag in _UNSEEN:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag == self._unseen[-1]:
                self._unseen.pop()
            return
        if tag == "title":
            self._in_title = False
        elif tag == self._in_heading:
            # An empty heading is none; the next one counts.
            self._in_heading = ""
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._in_title:
            self.title += data
            return
        if self._in_heading:
            self.heading = (self.heading + data).lstrip()
        if self._preformatted:
            self.pieces.append(data)
            return
        text = _SPACE.sub(" ", data)
        if not self.pieces or self.pieces[-1].endswith(("\n", " ", "\t")):
            text = text.lstrip(" ")
        if text:
            self.pieces.append(text)

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._end_line("\n\n")
        elif tag in _LINES:
            self._end_line("\n")

    def _end_line(self, newlines: str) -> None:
        if not self.pieces:
            return
        last = self.pieces[-1]
        if not self._preformatted:
            last = last.rstrip(" ")
        present = len(last) - len(last.rstrip("\n"))
        self.pieces[-1] = last + newlines[present:]
