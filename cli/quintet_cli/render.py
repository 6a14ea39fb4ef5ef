"""What people see of the gateway's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from quintet.gateway.v1.gateway_service_pb2 import (
    AnswerCache,
    AskResponse,
    AskStreamResponse,
    Citation,
    Hop,
    Passage,
    Trail,
)
from quintet.retriever.v1.link_service_pb2 import Link, RelatedPassage
from quintet.retriever.v1.retriever_service_pb2 import Hit
from quintet_cli import cache_use, cost, degradation
from quintet_cli.answering import quoted
from quintet_cli.terminal import one_line, seconds, shown, table
from quintet_cli.wrapping import Wrapped

QUOTE_CHARACTERS = 300
"""Most characters of a quotation: about three lines of a terminal."""
BAR_COLUMNS = 32
"""Width of the waterfall's bars, where the terminal has room for it."""
LEAST_BAR_COLUMNS = 8


class AnswerPrinter:
    """Prints an answer as its events come, with the passages' numbers as marks.

    The newest piece of text is kept back until the next event: a citation of a
    sentence comes with the first of the text after it.
    """

    def __init__(self, out: Console) -> None:
        self._text = Wrapped(out)
        self._kept = ""
        self._printed = 0
        self._marks: set[tuple[int, int]] = set()

    def __call__(self, event: AskStreamResponse) -> None:
        """Print one event of AskStream."""
        match event.WhichOneof("event"):
            case "text_delta":
                self._print(len(self._kept))
                self._kept = event.text_delta.text
            case "citation":
                self._mark(event.citation)
            case "completed":
                self.close()

    def close(self) -> None:
        """Print what was kept back, and end the line."""
        self._print(len(self._kept))
        self._text.close()

    def _mark(self, citation: Citation) -> None:
        ahead = citation.answer_end - self._printed
        mark = (citation.answer_end, citation.passage)
        # A source of text further back has no place any more; it is listed below.
        if 0 <= ahead <= len(self._kept) and mark not in self._marks:
            self._marks.add(mark)
            self._print(ahead)
            self._text.mark(f"[{citation.passage}]")

    def _print(self, length: int) -> None:
        self._text.write(self._kept[:length])
        self._kept = self._kept[length:]
        self._printed += length


def caveats(out: Console, response: AskResponse) -> None:
    """Print what of an answer does not rest on the documents, or was taken out of it."""
    if response.resolved_question:
        out.print(f"asked: {one_line(response.resolved_question)}", style="dim")
    unsupported = sum(not sentence.supported for sentence in response.sentences)
    withheld = sum(span.withheld for it in response.passages for span in it.instructions)
    told = {
        "sentences that no passage supports": unsupported,
        "sentences left out that no passage supports": response.dropped_sentences,
        "images or scripts taken out": response.removed_loads,
        "instructions in the passages, kept from the model": withheld,
    }
    for what, number in told.items():
        if number:
            out.print(f"{number} {what}", style="yellow")


def sources(out: Console, response: AskResponse) -> None:
    """Print an answer's citations: number, document, character range, quotation."""
    if response.abstention.abstained:
        out.print(f"{len(response.passages)} passages were found, none holds an answer.")
        return
    if not response.citations:
        out.print("No source is cited: check this answer against the passages.", style="yellow")
        return
    out.print("Sources", style="bold")
    passages = {passage.number: passage for passage in response.passages}
    for citation, quote in _distinct(response):
        passage = passages.get(citation.passage)
        out.print(_place(citation, passage))
        out.print(Padding(Text(f"“{quote}”", style="italic"), (0, 0, 0, 4), expand=False))
        if passage is not None and passage.HasField("link"):
            out.print(_through(passage.link, passage.hit))


def _distinct(response: AskResponse) -> Iterator[tuple[Citation, str]]:
    """Yield each cited stretch of a document once, by the passage's number."""

    def stretch(index: int) -> tuple[int, int, int]:
        citation = response.citations[index]
        return citation.passage, citation.document_start, citation.document_end

    ordered = sorted(range(len(response.citations)), key=stretch)
    for _, same in groupby(ordered, key=stretch):
        index = next(same)
        yield response.citations[index], excerpt(quoted(response, index))


def _place(citation: Citation, passage: Passage | None) -> Text:
    title = shown(passage.hit.title) if passage else ""
    return Text.assemble(
        (f"[{citation.passage}] ", "bold cyan"),
        (shown(citation.document_id), "bold"),
        f" · {title}" if title else "",
        (f" · characters {citation.document_start}-{citation.document_end}", "dim"),
    )


def excerpt(text: str, most: int = QUOTE_CHARACTERS) -> str:
    """Return a text as one line of at most `most` characters, cut at a word."""
    line = one_line(text)
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"


def footer(out: Console, response: AskResponse, took: float) -> None:
    """Print where an answer came from, if it was kept, what made it in how long, and what it
    cost; `took` in seconds."""
    if origin := cache_use.origin(response.cache):
        out.print(origin)
    if other := cache_use.other_question(response.cache):
        out.print(f"answer to: {other}", style="yellow")
    trace = response.trail.trace_id
    parts = [
        response.model,
        cache_use.tokens(response.usage),
        seconds(took),
        f"trace {trace}" if trace else "",
    ]
    out.print(" · ".join(part for part in parts if part), style="dim")
    if told := cost.line(response.bill):
        out.print(told, style="dim")
    if response.answer_id:
        out.print(f"how it came about: quintet explain {response.answer_id}", style="dim")


def token(out: Console, collection: str, consistency_token: str) -> None:
    """Print a write's consistency token and how to use it; nothing for none."""
    if consistency_token:
        command = f"quintet ask … -c {collection} --after {consistency_token}"
        # Never wrapped, so that it can be copied whole.
        out.print(f"to ask from this write on: {command}", style="dim", soft_wrap=True)


def hits(out: Console, found: Sequence[Hit]) -> None:
    """Print what a search found: rank, document, range, score, excerpt."""
    for rank, hit in enumerate(found, start=1):
        title = f" · {shown(hit.title)}" if hit.title else ""
        out.print(
            Text.assemble(
                (f"{rank:>2}. ", "bold cyan"),
                (shown(hit.document_id), "bold"),
                title,
                (f" · characters {hit.start}-{hit.end} · score {hit.score:.4f}", "dim"),
                (_made_of(hit), "dim"),
            )
        )
        out.print(Padding(Text(excerpt(hit.text)), (0, 0, 0, 4), expand=False))


def linked(out: Console, found: Sequence[RelatedPassage]) -> None:
    """Print what was found through links, each with its link."""
    for it in found:
        out.print(Text.assemble(" +  ", (shown(it.hit.document_id), "bold")))
        out.print(Padding(Text(excerpt(it.hit.text)), (0, 0, 0, 4), expand=False))
        out.print(_through(it.link, it.hit))


def _through(link: Link, hit: Hit) -> Padding:
    """Return how a passage was found: from which document, and the link's sentence."""
    leads_here = link.target_id == hit.document_id
    other, way = (link.source_id, "linked from") if leads_here else (link.target_id, "links to")
    said = excerpt(link.occurrences[0].sentence if link.occurrences else link.note)
    text = f"{way} {shown(other)}" + (f": “{said}”" if said else "")
    return Padding(Text(text, style="dim"), (0, 0, 0, 4), expand=False)


def _made_of(hit: Hit) -> str:
    parts = []
    if hit.scores.HasField("dense"):
        parts.append(f"cosine {hit.scores.dense:.3f}")
    if hit.scores.HasField("lexical"):
        parts.append(f"words {hit.scores.lexical:.3f}")
    if hit.merged_chunks:
        parts.append(f"{len(hit.merged_chunks) + 1} chunks")
    return f" ({', '.join(parts)})" if parts else ""


def waterfall(out: Console, trail: Trail, cache: AnswerCache | None = None) -> None:
    """Print each hop's start and duration, with bars over the request's time, and what
    its cache did or why it failed; for an answer without hops, why there are none by
    its `cache`."""
    total = _seconds_of(trail.total) or max((_end(hop) for hop in trail.hops), default=0.0)
    cells = [_cells(hop) for hop in trail.hops]
    cells.append(("whole request", "", "", seconds(total), ""))
    rows = table("hop", "model", ">start", ">took", "", "cache")
    for column in rows.columns:
        # The model's name gives way: it stands below the answer too.
        column.no_wrap = column.header != "model"
    taken = sum(max(map(len, column)) for column in zip(*cells, strict=True)) + 2 * len(
        rows.columns
    )
    width = max(LEAST_BAR_COLUMNS, min(BAR_COLUMNS, out.width - taken))
    for hop, (*left, cache_words) in zip(trail.hops, cells, strict=False):
        rows.add_row(*left, _bar(hop, total, width), cache_words)
    rows.add_row(*cells[-1][:-1], style="bold")
    out.print(rows)
    if cache is not None and not trail.hops:
        out.print(cache_use.why_no_hops(cache), style="dim")


def _cells(hop: Hop) -> tuple[str, str, str, str, str]:
    return (
        f"{hop.service}.{hop.method}",
        hop.model,
        seconds(_seconds_of(hop.start)),
        seconds(_seconds_of(hop.duration)),
        degradation.reason(hop.failure) or cache_use.hop(hop.cache),
    )


def _bar(hop: Hop, total: float, width: int) -> Text:
    """Return a hop's bar: its wait for the first message light, the rest heavy."""
    scale = width / total if total else 0.0
    began, took = _seconds_of(hop.start), _seconds_of(hop.duration)
    left = min(width - 1, int(began * scale))
    length = max(1, min(width - left, round(took * scale)))
    waited = 0
    if hop.HasField("first_message"):
        waited = min(length - 1, round(_seconds_of(hop.first_message) * scale))
    return Text.assemble(" " * left, ("─" * waited, "cyan"), ("━" * (length - waited), "bold cyan"))


def _end(hop: Hop) -> float:
    return _seconds_of(hop.start) + _seconds_of(hop.duration)


def _seconds_of(duration: object) -> float:
    nanos: int = duration.ToNanoseconds()  # type: ignore[attr-defined]
    return nanos / 1e9
