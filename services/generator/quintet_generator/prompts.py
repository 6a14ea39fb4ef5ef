"""Prompt templates: text files that say how a question is put to a model.

A template has a version line, a system part and a user part:

    version: 1
    === system ===
    ...
    === user ===
    ... $passages ... $question ...

Raise the version with each change of wording: it is on the trace of every answer.
An operator's own stand in a folder, see docs/prompts.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from string import Template

from quintet_generator.models import Passage, Prompt
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.invisible import visible

RENDERING = 2
"""Version of the code that makes a prompt of a template: raise it with each change of
what `render` returns, or of how a backend puts that into its model's chat form."""

MOST_TEMPLATES = 100
MOST_TEMPLATE_BYTES = 32_768
"""Bounds of a folder: a template is some paragraphs, and each is a value of metrics' labels."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FORMAT = re.compile(
    r"version: (?P<version>\d+)\n=== system ===\n(?P<system>.*)\n=== user ===\n(?P<user>.*)",
    re.DOTALL,
)


class TemplateError(ValueError):
    """A template, or a folder of them, that cannot be used; says which and why."""


@dataclass(frozen=True)
class PromptTemplate:
    """A template as it was read; `system` and `user` know `passages` and `question`."""

    name: str
    version: int
    system: Template
    user: Template

    @classmethod
    def parse(cls, name: str, text: str) -> PromptTemplate:
        """Read a template. Raises `TemplateError` for one that is malformed."""
        if not _NAME.fullmatch(name):
            raise TemplateError(f"template {name!r}: a name is 1 to 63 of a-z, 0-9, _ and -")
        match = _FORMAT.fullmatch(text.strip())
        if match is None:
            raise TemplateError(f"template {name} is not of the form that prompts.py describes")
        template = cls(
            name, int(match["version"]), Template(match["system"]), Template(match["user"])
        )
        known = {"passages", "question"}
        for part in (template.system, template.user):
            if not part.is_valid() or not known.issuperset(part.get_identifiers()):
                raise TemplateError(f"template {name} has a placeholder other than {sorted(known)}")
        return template

    def render(self, question: str, passages: Sequence[Passage]) -> Prompt:
        """Return the prompt. Placeholders within question and passages stay as they are.

        The passages, best first, keep their numbers and stand so that the best begin and
        end the row: what is in the middle of a long prompt is read least (Liu et al. 2023,
        "Lost in the Middle").
        """
        mark = marker(question, passages)
        numbered = [_as_data(mark, *item) for item in enumerate(passages, start=1)]
        ordered = numbered[0::2] + numbered[1::2][::-1]
        values = {"question": question, "passages": "\n".join(ordered)}
        return Prompt(self.system.substitute(values).strip(), self.user.substitute(values).strip())

    @cached_property
    def revision(self) -> str:
        """A hex digest of the template and of `RENDERING`: same revision, same prompts."""
        return _revision([self])

    @property
    def instructions(self) -> str:
        """The words of the system part, which are nobody's to read."""
        return self.system.substitute({"question": "", "passages": ""})


class Templates:
    """The templates that a service has, by name."""

    def __init__(self, templates: Sequence[PromptTemplate]) -> None:
        self._by_name: Mapping[str, PromptTemplate] = {it.name: it for it in templates}
        self.revision = _revision(templates)
        """A hex digest of all templates and of `RENDERING`: same revision, same prompts."""

    def __iter__(self) -> Iterator[PromptTemplate]:
        """Yield the templates by name."""
        return iter(it for _, it in sorted(self._by_name.items()))

    @classmethod
    def packaged(cls) -> Templates:
        """Read the templates that come with the service."""
        folder = files("quintet_generator") / "templates"
        return cls(
            [
                PromptTemplate.parse(file.name.removesuffix(".txt"), file.read_text("utf-8"))
                for file in folder.iterdir()
                if file.name.endswith(".txt")
            ]
        )

    @classmethod
    def with_folder(cls, folder: Path | None) -> Templates:
        """Read those and the files NAME.txt of a folder, which stand instead of packaged
        ones of their names. Raises `TemplateError`."""
        packaged = cls.packaged()
        return packaged if folder is None else cls([*packaged, *_read(folder)])

    def get(self, name: str) -> PromptTemplate:
        """Return a template. Raises `ServiceError` TEMPLATE_NOT_FOUND."""
        template = self._by_name.get(name)
        if template is None:
            raise ServiceError(
                Reason.TEMPLATE_NOT_FOUND,
                f"there is no template {name!r}",
                metadata={"template": name, "known": ",".join(sorted(self._by_name))},
            )
        return template


def _read(folder: Path) -> list[PromptTemplate]:
    try:
        found = sorted(folder.glob("*.txt"))
        if len(found) > MOST_TEMPLATES:
            raise TemplateError(f"{folder} holds more than {MOST_TEMPLATES} templates")
        if not found:
            raise TemplateError(f"{folder} holds no template: a file NAME.txt")
        for file in found:
            if file.stat().st_size > MOST_TEMPLATE_BYTES:
                raise TemplateError(f"{file} has more than {MOST_TEMPLATE_BYTES} bytes")
        return [PromptTemplate.parse(file.stem, file.read_text("utf-8")) for file in found]
    except OSError as error:
        raise TemplateError(
            f"{error.filename or folder} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{folder} holds a template that is not UTF-8") from error


def _revision(templates: Sequence[PromptTemplate]) -> str:
    told = [
        (it.name, it.version, it.system.template, it.user.template)
        for it in sorted(templates, key=lambda it: it.name)
    ]
    return hashlib.sha256(json.dumps([RENDERING, told]).encode()).hexdigest()


_TAG = re.compile(r"<(?=/?passage\b)", re.IGNORECASE)
_MARKER_DIGITS = 6


def marker(question: str, passages: Sequence[Passage]) -> str:
    """Return the mark of the passages' tags: six hex digits that stand in none of them
    and not in the question, so that no text can close its own tag.

    It is a digest of the passages: the same request gets the same prompt, and so the
    same answer, and prompts with the same passages begin alike.
    """
    texts = [part for it in passages for part in (it.title, it.text)]
    digest = hashlib.sha256(json.dumps(texts).encode())
    while (mark := digest.hexdigest()[:_MARKER_DIGITS]) in question.lower() or any(
        mark in text.lower() for text in texts
    ):
        digest.update(b"again")
    return mark


def _as_data(mark: str, number: int, passage: Passage) -> str:
    """Return a passage between tags that its own words cannot close."""
    title = " ".join(visible(passage.title).replace('"', "'").split())
    attribute = f' title="{_TAG.sub("< ", title)}"' if title else ""
    text = _TAG.sub("< ", visible(passage.text).strip())
    return f'<passage-{mark} number="{number}"{attribute}>\n{text}\n</passage-{mark}>'
