"""Names: what documents are found by, and what links look for.

A link and a document meet when they have a name in common, as in Foam and Obsidian: the
file's name without its extension, in any case, or as much of the path before it as
tells it from others. Resolving is a look-up at the time of reading, so that a link
leads to whatever document has its name then, and nothing must be repaired when
documents come and go.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from quintet_retriever.links.models import Name, Rank

MAX_TARGET_CHARS = 512
"""Longest target of a link; as long as the longest id."""
MAX_SUFFIXES = 16
"""Most ends of a path that it is found by; deeper folders are found by their whole path."""
MAX_ALIASES = 32
MAX_NAME_BYTES = 1_000
"""A longer name is kept as a digest: an index takes 2.7 KB a row."""

_TEXT = frozenset({"md", "markdown", "mdown", "mdx", "txt", "rst", "adoc", "org", "html", "htm"})
"""Extensions that a link may leave out."""
_ATTACHMENT = frozenset(
    "png jpg jpeg gif svg webp bmp ico avif tif tiff mp3 wav ogg flac m4a mp4 webm mov mkv avi "
    "zip gz tar 7z css js woff woff2 ttf".split()
)
"""Extensions of what is never a document."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
"""How YAML writes that there is no value."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that escapes in front matter may stand for, and no database keeps."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_FOLDER_FILES = {"index": Rank.INDEX, "readme": Rank.README}


def id_name(document_id: str) -> str:
    """Return the name of the very document of that id."""
    return _bounded(f"id:{document_id}")


def names_of(document_id: str, title: str, aliases: Sequence[str]) -> tuple[Name, ...]:
    """Return the names of a document, each once with its least rank."""
    path = _folded(document_id).strip("/")
    stem, extension = _split(path)
    found: dict[str, Rank] = {}

    def add(kind: str, text: str, rank: Rank) -> None:
        if text:
            name = _bounded(f"{kind}:{text}")
            found[name] = min(rank, found.get(name, rank))

    found[id_name(document_id)] = Rank.EXACT
    for whole in {path, stem, path if extension else f"{path}.md"}:
        add("path", whole, Rank.EXACT)
        add("name", whole, Rank.EXACT)
        for suffix in _suffixes(whole):
            add("name", suffix, Rank.SUFFIX)
    folder, _, file = stem.rpartition("/")
    if file in _FOLDER_FILES:
        rank = _FOLDER_FILES[file]
        add("path", folder or ".", rank)
        add("name", folder, rank)
        for suffix in _suffixes(folder):
            add("name", suffix, rank)
    add("name", _folded(title), Rank.TITLE)
    for alias in aliases[:MAX_ALIASES]:
        add("name", _folded(alias), Rank.ALIAS)
    return tuple(Name(name, rank) for name, rank in found.items())


def wiki_name(target: str, source_id: str) -> str | None:
    """Return the name that `[[target]]` in a document looks for; None if it is no link to
    a document."""
    text = target.strip()
    if not text or len(text) > MAX_TARGET_CHARS or _is_attachment(text):
        return None
    if text.startswith(("./", "../", "/")):
        return _path_name(text, source_id)
    folded = _folded(text).strip("/")
    return _bounded(f"name:{folded}") if folded else None


def markdown_name(href: str, source_id: str) -> tuple[str, str, str] | None:
    """Return the name that a Markdown link to `href` looks for, its path as text, and its
    fragment; None for what is no link to another document."""
    if len(href) > 4 * MAX_TARGET_CHARS or _SCHEME.match(href):
        return None
    path, _, fragment = href.partition("#")
    path = unquote(path.partition("?")[0])
    if not path.strip() or len(path) > MAX_TARGET_CHARS or "\0" in path or _is_attachment(path):
        return None
    name = _path_name(path, source_id)
    return None if name is None else (name, path, unquote(fragment).replace("\0", ""))


def aliases_in(values: object) -> list[str]:
    """Return the aliases that front matter or metadata give: a text, with commas between
    several, or a list of texts."""
    if isinstance(values, str):
        values = values.split(",")
    if not isinstance(values, Iterable):
        return []
    texts = [it.strip() for it in values if isinstance(it, str)]
    return [
        it
        for it in texts
        if it not in _NULLS and len(it) <= MAX_TARGET_CHARS and not _UNWRITABLE.search(it)
    ]


def _path_name(path: str, source_id: str) -> str | None:
    base = "" if path.startswith("/") else posixpath.dirname(source_id)
    whole = posixpath.normpath(posixpath.join("/", base, path.replace("\\", "/").lstrip("/")))
    # The root's own index is found under ".".
    return _bounded(f"path:{_folded(whole).strip('/') or '.'}")


def _suffixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(max(1, len(parts) - MAX_SUFFIXES), len(parts))]


def _split(path: str) -> tuple[str, str]:
    stem, dot, extension = path.rpartition(".")
    if dot and stem and not stem.endswith("/") and extension in _TEXT:
        return stem, extension
    return path, ""


def _is_attachment(target: str) -> bool:
    stem, _, extension = target.rpartition(".")
    return bool(stem) and extension.strip().lower() in _ATTACHMENT


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFC", text.replace("\\", "/"))
    return unicodedata.normalize("NFC", " ".join(plain.split()).casefold())


def _bounded(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    return f"digest:{hashlib.blake2b(encoded, digest_size=32).hexdigest()}"
