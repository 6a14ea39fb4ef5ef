"""Prompt templates: text files that say how a question is put to a model.

A template has a version line, a system part and a user part:

    version: 1
    === system ===
    ...
    === user ===
    ... $passages ... $question ...

Raise the version with each change of wording: it is on the trace of every answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from quintet_generator.models import Passage, Prompt
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.invisible import visible

RENDERING = 2
"""Version of the code that makes a prompt of a template: raise it with each change of
what `render` returns, or of how a backend puts that into its model's chat form."""

_FORMAT = re.compile(
    r"version: (?P<version>\d+)\n=== system ===\n(?P<system>.*)\n=== user ===\n(?P<user>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class PromptTemplate:
    """A template as it was read; `system` and `user` know `passages` and `question`."""

    name: str
    version: int
    system: Template
    user: Template

    @classmethod
    def parse(cls, name: str, text: str) -> PromptTemplate:
        """Read a template. Raises ValueError for one that is malformed."""
        match = _FORMAT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"template {name} is not of the form that prompts.py describes")
        template = cls(
            name, int(match["version"]), Template(match["system"]), Template(match["user"])
        )
        known = {"passages", "question"}
        for part in (template.system, template.user):
            if not part.is_valid() or not known.issuperset(part.get_identifiers()):
                raise ValueError(f"template {name} has a placeholder other than {sorted(known)}")
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
