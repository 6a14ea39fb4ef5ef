"""docs/what-is-down.md: what callers see while something is broken, as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chaos.measured import Measured, Row

FILE = Path(__file__).parent.parent.parent / "docs" / "what-is-down.md"
_HEADER = """\
# What is down, and what the caller sees

Each part was broken in each way for {seconds} s while callers asked, searched and wrote: some 23
calls a second, in turn with a deadline of {deadlines}. Made by `make chaos`
from its measurements (`tests/chaos/what_is_down.py`): do not edit. What the words mean, and
what is done about each failure, is in [degradation.md](degradation.md).

How to read a cell: what calls got, the most frequent first and with how many if not all got the
same; then the median and the longest time in ms. **new**: a question, or document, that was never
sent before; **again**: one that has been answered, and is kept, or a document that stands there.
*answered* means that nothing is flagged; a substitute such as `STALE_ANSWER` is flagged in
`degradations`; all else is the reason of a failure. DEADLINE_EXCEEDED is the caller's own deadline,
or one that a service kept for it. UNAVAILABLE is gRPC's own word, where nobody was there to
give a reason.

**over after**: seconds from the fault's end until calls of each RPC were answered without a flag,
in the order of the columns; *at once*: none failed or was flagged that began after the end. A
process that was killed is ready again at the fault's end; nothing else was restarted.

- *killed*: SIGKILL, and not started again as long as the fault lasts; *frozen*: SIGSTOP, with all
  child processes.
- *refusing*: connections are reset, and none is accepted; *black-holed*: no byte gets through, and
  nobody is told; *slow by 500 ms*: so late is each packet, in each direction, so that an
  answer takes at least a second more; *slow drip*: 16 bytes each 75 ms; *resets*:
  each connection is reset after 100 to 4,000 bytes of answers.
- *out of disk*: no byte is left on the volume of PostgreSQL's data.

{calls:,} calls were made. The most that one outlived its deadline by: {late:.0f} ms. Successes that
were neither right nor flagged, acknowledged documents that were lost, processes that had to be
started again: {wrong}. The slowest recovery: {slowest}.
"""
_TITLES = {
    "postgresql": "PostgreSQL",
    "valkey": "Valkey",
}
_RPCS = ("Ask", "AskStream", "Search", "Ingest")
_MOST_OUTCOMES = 3


def page(
    found: Sequence[Measured], order: Sequence[tuple[str, str]], header: dict[str, str]
) -> str:
    """Return the page; `order` is that of parts and faults."""
    by_cell = {(it.part, it.fault): it for it in found}
    recoveries = [seconds for it in found for seconds in it.recovery.values()]
    complete = all(len(it.recovery) == len(_RPCS) for it in found)
    lines = [
        _HEADER.format(
            calls=sum(it.calls for it in found),
            late=max((it.late_ms for it in found), default=0.0),
            wrong=sum(len(it.wrong) for it in found) or "none",
            slowest=f"{max(recoveries, default=0.0):.1f} s" if complete else "not all were over",
            **header,
        )
    ]
    for part in dict.fromkeys(part for part, _ in order):
        lines += [
            f"## {_TITLES.get(part, f'The {part}')}",
            "",
            f"| fault | {' | '.join(_RPCS)} | over after |",
            f"|---{'|---' * len(_RPCS)}|---|",
        ]
        for cell in order:
            if cell[0] == part and cell in by_cell:
                lines.append(_line(by_cell[cell]))
        lines.append("")
    return "\n".join(lines)


def _line(measured: Measured) -> str:
    cells = []
    for rpc in _RPCS:
        new, again = measured.rows[f"{rpc} new"], measured.rows[f"{rpc} again"]
        cells.append(f"new: {_told(new)}<br>again: {_told(again)}")
    over = " / ".join(_over(measured.recovery.get(rpc)) for rpc in _RPCS)
    if not any(measured.recovery.get(rpc, 1.0) for rpc in _RPCS):
        over = _over(0.0)
    return f"| {measured.fault} | {' | '.join(cells)} | {over} |"


def _over(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds:.1f}" if seconds else "at once"


def _told(row: Row) -> str:
    shown = sorted(row.outcomes.items(), key=lambda it: (-it[1], it[0]))
    words = [f"`{name}`" if name != "answered" else name for name, _ in shown]
    if len(shown) > 1:
        words = [f"{number} {word}" for word, (_, number) in zip(words, shown, strict=True)]
    more = ["…"] if len(words) > _MOST_OUTCOMES else []
    return f"{', '.join(words[:_MOST_OUTCOMES] + more)}; {row.median_ms:.0f}, {row.most_ms:.0f}"
