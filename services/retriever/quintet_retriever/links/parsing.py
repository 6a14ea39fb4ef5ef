"""Reads the links of a text in Markdown: `[[wiki links]]` and links to other files.

markdown-it knows what is code, HTML or front matter, where a bracket is no link. Pure: no
I/O, and no look at which documents exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline import link as markdown_link
from markdown_it.token import Token

from quintet_retriever.links.models import DocumentLinks, FoundLink, Occurrence
from quintet_retriever.links.names import aliases_in, markdown_name, names_of, wiki_name
from quintet_servicekit.sentences import sentence_spans

MAX_LINKS = 5_000
"""Most targets of one document. An index of a large wiki has some thousands."""
MAX_OCCURRENCES = 16
"""Most places that are kept of one link; all are counted."""
MAX_SENTENCE_CHARS = 400
"""Longest sentence that is kept with a link: about four lines."""
MAX_LABEL_CHARS = 200
MAX_FRONT_MATTER_CHARS = 65_536

_FRONT_MATTER = re.compile(
    r"\ufeff?---[ \t]*\r?\n(.*?)(?:^|\n)(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", re.DOTALL
)
_NEWLINE = re.compile(r"\r\n?|\n")
_WIKI = re.compile(r"!?\[\[([^\[\]\n|#]*)(#[^\[\]\n|]*)?(?:\|([^\[\]\n]*))?\]\]")


def links_of(
    document_id: str, title: str, content: str, metadata: Mapping[str, Any]
) -> DocumentLinks:
    """Return a document's names and links. Takes about half a second a million
    characters, whatever they are."""
    front, front_end = _front_matter(content)
    aliases = [
        *aliases_in(metadata.get("aliases")),
        *aliases_in(front.get("aliases")),
        *aliases_in(front.get("alias")),
        *aliases_in([front.get("title")]),
    ]
    names = names_of(document_id, title, aliases)
    own = {it.name for it in names if it.rank == 0}
    found: dict[str, _Gathered] = {}
    omitted = 0
    if "[[" in content or "](" in content or "]:" in content:
        for name, target, occurrence in _occurrences(document_id, content, front_end):
            if name in own:
                continue
            gathered = found.get(name)
            if gathered is None:
                if len(found) == MAX_LINKS:
                    omitted += 1
                    continue
                gathered = found[name] = _Gathered(target)
            gathered.add(occurrence)
    return DocumentLinks(names, tuple(it.link(name) for name, it in found.items()), omitted)


@dataclass(slots=True)
class _Gathered:
    target: str
    occurrences: list[Occurrence] = field(default_factory=list)
    count: int = 0

    def add(self, occurrence: Occurrence) -> None:
        self.count += 1
        if len(self.occurrences) < MAX_OCCURRENCES:
            self.occurrences.append(occurrence)

    def link(self, name: str) -> FoundLink:
        return FoundLink(name, self.target, tuple(self.occurrences), self.count)


def _front_matter(content: str) -> tuple[Mapping[str, Any], int]:
    """Return the front matter's values, and the character at which it ends."""
    match = _FRONT_MATTER.match(content, 0, MAX_FRONT_MATTER_CHARS)
    if match is None:
        return {}, 0
    try:
        # All scalars as texts: tags and merges, by which a small text can become a huge value
        # or fail in any way, mean nothing to it.
        values = yaml.load(match[1], yaml.BaseLoader)  # noqa: S506 - makes texts alone
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    return values if isinstance(values, dict) else {}, match.end()


def _occurrences(
    document_id: str, content: str, start: int
) -> Iterator[tuple[str, str, Occurrence]]:
    lines = _Lines(content)
    skipped = "\n" * len(_NEWLINE.findall(content, 0, start))
    for block in _MARKDOWN.parse(skipped + content[start:]):
        if block.type != "inline" or not block.children or block.map is None:
            continue
        # Of a cell without links too: the next one of its row stands after it.
        place = lines.place_of(block.map, block.content)
        links = [it for it in block.children if "span" in it.meta]
        if not links:
            continue
        sentences = _Sentences(block.content)
        for token in links:
            read = _read(token, document_id)
            if read is None:
                continue
            name, target, label, fragment, embed = read
            first, last = token.meta["span"]
            begin, end = place(first, last)
            sentence = sentences.around(first, last)
            occurrence = Occurrence(begin, end, sentence, label, fragment, embed)
            yield name, target, occurrence


def _read(token: Token, document_id: str) -> tuple[str, str, str, str, bool] | None:
    """Return a link's name, target, label and fragment, and whether it is an embed."""
    if token.type == "wiki_link":
        target, fragment, label = token.meta["parts"]
        name = wiki_name(target, document_id)
        embed = token.meta["embed"]
    else:
        href = token.attrGet("href")
        read = markdown_name(str(href), document_id) if href else None
        if read is None:
            return None
        name, target, fragment = read
        label, embed = token.meta["label"], False
    if name is None:
        return None
    return name, target.strip(), label[:MAX_LABEL_CHARS], fragment[:MAX_LABEL_CHARS], embed


def _wiki_rule(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "![":
        return False
    match = _WIKI.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        target, fragment, label = (part or "" for part in match.groups())
        token = state.push("wiki_link", "", 0)
        token.content = match[0]
        token.meta = {
            "span": match.span(),
            # In a table, Obsidian's writers put a backslash before the bar.
            "parts": (target.removesuffix("\\"), fragment.removeprefix("#").strip(), label.strip()),
            "embed": match[0].startswith("!"),
        }
    state.pos = match.end()
    return True


def _link_rule(state: StateInline, silent: bool) -> bool:
    start, before = state.pos, len(state.tokens)
    if not markdown_link(state, silent):
        return False
    if not silent:
        opening = next(it for it in state.tokens[before:] if it.type == "link_open")
        inner = (it.content for it in state.tokens[before:] if it.type in ("text", "code_inline"))
        opening.meta = {"span": (start, state.pos), "label": "".join(inner)}
    return True


def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": True}).enable("table").disable("emphasis")
    reader.inline.ruler.at("link", _link_rule)
    reader.inline.ruler.before("link", "wiki_link", _wiki_rule)
    return reader


_MARKDOWN = _reader()


class _Sentences:
    """The sentences of a block."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans = sentence_spans(text)

    def around(self, first: int, last: int) -> str:
        """Return the sentence, or the sentences, of the characters `first` to `last`."""
        within = [it for it in self._spans if it[0] < last and it[1] > first]
        start, end = (within[0][0], within[-1][1]) if within else (first, last)
        if end - start > MAX_SENTENCE_CHARS:
            margin = max(0, MAX_SENTENCE_CHARS - (last - first)) // 2
            start, end = max(start, first - margin), min(end, last + margin)
        return " ".join(self._text[start : min(end, start + MAX_SENTENCE_CHARS)].split())


class _Lines:
    """Where blocks stand in a document: markdown-it tells their lines only."""

    def __init__(self, content: str) -> None:
        breaks = [*_NEWLINE.finditer(content)]
        self._content = content
        self._starts = [0, *(it.end() for it in breaks)]
        self._ends = [*(it.start() for it in breaks), len(content)]
        # Cells of a table's row share a line: each is sought after the one before.
        self._line, self._cursor = -1, 0

    def place_of(self, lines: Sequence[int], text: str) -> _Place:
        """Return how characters of a block's text, on `lines`, map to the document's."""
        texts = text.split("\n")
        found = []
        for number, line in enumerate(texts, start=self._first_of(lines, texts)):
            number = min(number, len(self._starts) - 1)
            start = self._cursor if number == self._line else self._starts[number]
            end = self._ends[number]
            place = self._line_at(line, start, end)
            self._line, self._cursor = number, min(end, place.of(len(line)))
            found.append(place)
        return _Place(text, found)

    def _first_of(self, lines: Sequence[int], texts: Sequence[str]) -> int:
        """Return the line that a block's text begins on: lines of nothing but, say, a
        no-break space are the block's, and not in its text."""
        numbers, words = range(lines[0], lines[1] - len(texts) + 1), texts[0].strip()
        if len(numbers) > 1 and words:
            for number in numbers:
                if self._content.find(words, self._starts[number], self._ends[number]) >= 0:
                    return number
        return lines[0]

    def _line_at(self, line: str, start: int, end: int) -> _Line:
        if "|" in line:
            # In a cell of a table each bar has its backslash. Sought first, as what stands
            # there is found at once.
            at = self._content.find(line.replace("|", "\\|"), start, end)
            if at >= 0:
                return _Line(line, at, end, escaped=True)
        at = self._content.find(line, start, end)
        if at >= 0:
            return _Line(line, at, end)
        # A tab at the beginning may have become spaces.
        bare = line.lstrip()
        at = self._content.find(bare, start, end)
        return _Line(line, start if at < 0 else at - (len(line) - len(bare)), end)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a line of a block's text stands in the document: its characters from `at` on,
    none after `end`; where it is `escaped`, a backslash before each bar."""

    text: str
    at: int
    end: int
    escaped: bool = False

    def of(self, column: int) -> int:
        escapes = self.text.count("|", 0, column) if self.escaped else 0
        return min(self.at + column + escapes, self.end)


class _Place:
    """Maps characters of a block's text to the document's."""

    def __init__(self, text: str, lines: Sequence[_Line]) -> None:
        self._text = text
        self._lines = lines

    def __call__(self, first: int, last: int) -> tuple[int, int]:
        """Return where characters `first` to `last` of the text stand."""
        begin = self._of(first)
        return begin, max(begin, self._of(last - 1) + 1)

    def _of(self, position: int) -> int:
        line = self._text.count("\n", 0, position)
        return self._lines[line].of(position - (self._text.rfind("\n", 0, position) + 1))
