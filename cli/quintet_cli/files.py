"""Files and folders to documents: which are read, in what order, and as what.

Nothing here knows the gateway. A file that cannot become a document is a
`Rejected`, never an exception: one bad file must not end an ingestion.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quintet_cli import html

TYPES = {
    ".md": "markdown",
    ".txt": "text",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
}
"""Types of the files that are read, by suffix."""
MAX_BYTES = 15 * 2**20
"""Largest file. A message of the gateway holds 16 MiB, and its own limit of
characters, which is lower, is told by itself."""
MAX_TITLE = 1000
"""Longest title, in characters, that the gateway takes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read, and the id that its document gets."""

    path: Path
    id: str

    @property
    def name(self) -> str:
        """The path as it can be printed."""
        return printable(self.path)


@dataclass(frozen=True, slots=True)
class Document:
    """What is brought in. `metadata` holds strings and numbers."""

    id: str
    title: str
    content: str
    metadata: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file or folder that cannot be brought in, and why."""

    path: Path
    id: str
    reason: str

    @property
    def name(self) -> str:
        """The path as it can be printed."""
        return printable(self.path)


def printable(path: Path) -> str:
    """Return a path as text, with U+FFFD for bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def find(paths: Sequence[Path]) -> Iterator[Source | Rejected]:
    """Yield the files that `paths` name, each once.

    A folder is walked in the order of its names, hidden names and files of other
    types left out, symbolic links followed but no folder entered twice. The id
    is the path within the folder, with "/", or the name of a file that was
    named itself.
    """
    taken: dict[str, Source] = {}
    for path in paths:
        found = _walk(path, "", set()) if path.is_dir() else _named(path)
        for item in found:
            if isinstance(item, Source):
                if not _encodable(item.id):
                    yield Rejected(item.path, printable(Path(item.id)), "its name is not UTF-8")
                    continue
                first = taken.setdefault(item.id, item)
                if first is not item:
                    if _same_file(first.path, item.path):
                        continue
                    item = Rejected(item.path, item.id, f"{first.name} has the same id")
            yield item


def _named(path: Path) -> Iterator[Source | Rejected]:
    if path.suffix.lower() in TYPES:
        yield Source(path, path.name)
    else:
        known = " ".join(TYPES)
        yield Rejected(path, path.name, f"not a type that is read ({known})")


def _walk(folder: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[Source | Rejected]:
    try:
        status = folder.stat()
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError as error:
        yield Rejected(folder, printable(Path(prefix)), _told(error))
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    above.add(here)
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, f"{prefix}{name}/", above)
        elif path.suffix.lower() in TYPES:
            yield Source(path, prefix + name)


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def read(source: Source) -> Document | Rejected:
    """Read one file. At most `MAX_BYTES` are read of it."""

    def rejected(reason: str) -> Rejected:
        return Rejected(source.path, source.id, reason)

    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        descriptor = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return rejected("not a regular file")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return rejected(_told(error))
    if len(data) > MAX_BYTES:
        size = max(status.st_size, len(data))
        return rejected(f"too large: {size:,} bytes, and at most {MAX_BYTES:,} are accepted")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from after a byte order mark.
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        return rejected(f"not UTF-8: byte 0x{data[at]:02x} at offset {at}")
    if "\0" in text:
        return rejected(f"not text: NUL byte at offset {data.index(0)}")
    kind = TYPES[source.path.suffix.lower()]
    if kind == "html":
        title, text = html.text_of(text)
    else:
        title = heading(text, kind)
    if not text.strip():
        return rejected("empty" if not data else "no text in it")
    return Document(
        id=source.id,
        title=(title or source.path.name)[:MAX_TITLE],
        content=text,
        metadata={
            "path": source.id,
            "type": kind,
            "size": len(data),
        },
    )


def _told(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*\n", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(```|~~~)")
_HASHES = re.compile(r" {0,3}#{1,6}[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINES = {
    "markdown": re.compile(r"(=+|-+)[ \t]*$"),
    "rst": re.compile(r"([=\-~^\"'`#*+:.<>_])\1{2,}[ \t]*$"),
    "text": re.compile(r"([=\-~*#])\1{2,}[ \t]*$"),
}


def heading(text: str, kind: str) -> str:
    """Return the title of a text of kind "markdown", "rst" or "text": the first
    line with a line of "===" or the like under it; in Markdown also the front
    matter's title and a line after "#". "" if there is none."""
    if kind == "markdown" and (front := _FRONT_MATTER.match(text)):
        if found := _FRONT_TITLE.search(front[1]):
            return found[2].strip()
        text = text[front.end() :]
    before, fenced = "", False
    for line in text.splitlines():
        if kind == "markdown":
            fenced ^= bool(_FENCE.match(line))
            if fenced:
                before = ""
                continue
            if found := _HASHES.match(line):
                return found[1].strip()
        title = before.strip()
        underlined = _UNDERLINES[kind].match(line) and (
            kind == "markdown" or len(line.rstrip()) >= len(title)
        )
        if underlined and any(letter.isalnum() for letter in title):
            return title
        before = line
    return ""
