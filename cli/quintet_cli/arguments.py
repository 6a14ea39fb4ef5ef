"""Arguments and options that several commands have, declared once.

Imported for `--help`: keep it light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer


class Mode(StrEnum):
    """How passages are found."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


class CacheChoice(StrEnum):
    """Which kept answers may be served."""

    DEFAULT = "default"
    NONE = "none"
    EXACT = "exact"
    SEMANTIC = "semantic"


class LinkTypeChoice(StrEnum):
    """What a link says of its target."""

    RELATED = "related"
    REFERENCES = "references"
    EXPANDS_ON = "expands-on"
    CONTRADICTS = "contradicts"
    SUPPORTS = "supports"
    FOLLOWS = "follows"
    PRECEDES = "precedes"

    @property
    def contract(self) -> str:
        """The contract's name of it."""
        return f"LINK_TYPE_{self.name}"


class GraphFormat(StrEnum):
    """The language of a graph."""

    MERMAID = "mermaid"
    DOT = "dot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question as the command line gives it."""

    question: str
    collection: str
    passages: int = 0
    model: str = ""
    template: str = ""
    conditions: Sequence[str] = ()
    """Of the form key=value; see `filters.parsed`."""
    mode: Mode = Mode.HYBRID
    cache: CacheChoice = CacheChoice.DEFAULT
    fresh: bool = False
    after: str | None = None
    """Consistency token."""
    fail_if_degraded: bool = False
    max_staleness: float | None = None
    """Seconds."""
    grounded_only: bool = False
    refine: Sequence[str] = ()
    """Steps; see `refining.parsed`."""
    links: int = 0


DEFAULT_COLLECTION = "default"
MOST_STALENESS = 315_360_000_000
"""Seconds: ten thousand years, which a duration of the contracts still holds."""

Collection = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Question = Annotated[str, typer.Argument(help="The question.")]
Passages = Annotated[
    int, typer.Option(min=0, max=50, help="Most passages to answer from; 0: the gateway's 5.")
]
Model = Annotated[str, typer.Option(help="Generator's model; see `quintet status`.")]
Template = Annotated[str, typer.Option(help="Prompt template; default: the one that is assigned.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="Only documents whose metadata match; can be given again. Numbers, true and "
        'false are taken as such; put "double quotes" around a text that looks like one.',
    ),
]
ModeOption = Annotated[
    Mode, typer.Option(help="By meaning, by words, or by both fused.", case_sensitive=False)
]
CacheOption = Annotated[
    CacheChoice,
    typer.Option(
        help="Which kept answers will do: none, the same question's, or a near one's too.",
        case_sensitive=False,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="As fresh as the database is at this moment.")]
After = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="At least as fresh as the write that told this token.",
    ),
]
FailIfDegraded = Annotated[
    bool, typer.Option("--fail-if-degraded", help="Fail rather than get something less.")
]
MaxStaleness = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        max=MOST_STALENESS,
        help="How old an answer may be that can't be checked; 0: none will do.",
    ),
]
GroundedOnly = Annotated[
    bool, typer.Option("--grounded-only", help="Leave out sentences that no passage supports.")
]
Refine = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP",
        help="What is done with what is found, before the best is taken: rerank (the embedder "
        "orders it anew), collapse=0.7 (near-duplicates go), diverse=0.7 (the less, the more "
        "different), per-document=2 (passages at most), merge (neighbours become one); "
        "candidates=50 is how much is found for it. Can be given again.",
        show_default=False,
    ),
]
Links = Annotated[
    int,
    typer.Option(
        "--links",
        metavar="N",
        min=0,
        max=10,
        help="Add N passages of documents that are one link away from those found.",
    ),
]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="Then read further questions, a line each, about the answers."),
]
Waterfall = Annotated[
    bool, typer.Option("--waterfall", help="Draw what each hop took, and what its cache did.")
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="SPEC",
        help="Have a fault done to this question, where the services allow it; can be given "
        "again. For instance embedder/Embed;delay=500ms or generator/*;abort=UNAVAILABLE.",
        show_default=False,
    ),
]
DocumentId = Annotated[str, typer.Argument(metavar="ID", help="Identifier of the document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
LinkSource = Annotated[
    str, typer.Argument(metavar="FROM", help="Identifier of the document that links.")
]
LinkTarget = Annotated[
    str, typer.Argument(metavar="TO", help="Identifier of the document that is linked to.")
]
LinkTypeOption = Annotated[
    LinkTypeChoice,
    typer.Option("--type", help="What the link says of its target.", case_sensitive=False),
]
