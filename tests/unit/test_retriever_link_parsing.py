"""What counts as a link of a text, what it looks for, and where it stands."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quintet_retriever.links.models import DocumentLinks, Rank
from quintet_retriever.links.names import aliases_in, names_of, wiki_name
from quintet_retriever.links.parsing import MAX_LINKS, MAX_OCCURRENCES, links_of


def read(content: str, document_id: str = "folder/note.md") -> DocumentLinks:
    return links_of(document_id, "", content, {})


def targets(content: str) -> list[str]:
    return [link.target for link in read(content).links]


def test_wiki_links_have_alias_heading_block_and_embed() -> None:
    content = "[[one]] [[two|Two!]] [[three#A heading]] [[four#^block]] ![[five]] [[six#h|Six]]"
    found = [(it.target, it.occurrences[0]) for it in read(content).links]
    assert [(target, o.label, o.fragment, o.embed) for target, o in found] == [
        ("one", "", "", False),
        ("two", "Two!", "", False),
        ("three", "", "A heading", False),
        ("four", "", "^block", False),
        ("five", "", "", True),
        ("six", "Six", "h", False),
    ]


def test_markdown_links_are_relative_encoded_and_have_fragments() -> None:
    content = (
        "[a](other.md) [b](../up/x) [c](/root%20file.md#part) [d](sub/) [e][ref]\n\n[ref]: r.md"
    )
    found = {it.target: it for it in read(content).links}
    assert [it.name for it in found.values()] == [
        "path:folder/other.md",
        "path:up/x",
        "path:root file.md",
        "path:folder/sub",
        "path:folder/r.md",
    ]
    assert found["/root file.md"].occurrences[0].fragment == "part"
    assert found["other.md"].occurrences[0].label == "a"


def test_images_external_addresses_and_fragments_alone_are_no_links() -> None:
    content = (
        "![i](image.md) [e](https://example.org/a.md) [m](mailto:a@b.c) [p](//host/x.md)"
        " [f](#here) [[#here]] [[]] ![[photo.png]] [[clip.mp4|300]] [z](archive.zip) <http://a.b>"
        r" \[[escaped]] [empty]()"
    )
    assert targets(content) == []


def test_nothing_in_code_html_or_front_matter_is_a_link() -> None:
    content = """---
related: "[[front]]"
aliases: [A, B]
---
`[[code]]` ``[x](code.md)`` <!-- [[comment]] -->

    [[indented]]

```
[[fenced]]
```

<div>
[[block]]
</div>

[[real]]
"""
    found = read(content)
    assert [it.target for it in found.links] == ["real"]
    assert {"name:a", "name:b"} <= {it.name for it in found.names if it.rank is Rank.ALIAS}


def aliases(front_matter: str) -> set[str]:
    names = read(f"\ufeff---\r\n{front_matter}\r\n---\r\n[[real]]").names
    return {it.name.removeprefix("name:") for it in names if it.rank is Rank.ALIAS}


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("aliases: [A, B]\r\ntitle: The C", {"a", "b", "the c"}),
        ("title: 2024-01-01\naliases: [7, true]", {"2024-01-01", "7", "true"}),
        ("title: ~\naliases: null", set()),
        ("title: a: b", set()),
        # What tags and escapes name, PyYAML fails to make in ways of its own.
        ("title: A\nx: !!bool maybe", {"a"}),
        ("title: A\nx: !!timestamp soon", {"a"}),
        ('title: A\nx: !!int ""', {"a"}),
        ("title: !!python/name:os.system A", {"a"}),
        (r'aliases: ["\ud800", "\0", B]', {"b"}),
        ("[" * 5_000, set()),
    ],
)
def test_front_matter_of_any_kind_is_read_or_passed_over(
    front_matter: str, expected: set[str]
) -> None:
    assert aliases(front_matter) == expected
    for name in expected:
        name.encode()


def test_front_matter_that_multiplies_itself_takes_no_time() -> None:
    doubled = [f"a{it}: &a{it} {{<<: [*a{it - 1}, *a{it - 1}]}}" for it in range(1, 30)]
    began = time.perf_counter()
    assert aliases("\n".join(["a0: &a0 {k: v, l: w}", *doubled, "title: A"])) == {"a"}
    # A billion pairs otherwise.
    assert time.perf_counter() - began < 10


def test_cells_of_one_row_are_told_apart() -> None:
    content = "| a | b |\n|---|---|\n| `[[x]]` | [[x]] |\n| [[y\\|why]] | [[y]] |\n"
    found = {it.target: it for it in read(content).links}
    (place,) = found["x"].occurrences
    assert place.start == content.index("| [[x]]") + 2
    assert found["y"].count == 2 and found["y"].occurrences[0].label == "why"
    escaped, plain = found["y"].occurrences
    assert content[escaped.start : escaped.end] == "[[y\\|why]]"
    assert content[plain.start : plain.end] == "[[y]]"


PIECES = st.sampled_from(
    [
        *"a é̂ 日本語 👩‍👩‍👧 a\u0301 \u200b \u00a0 \ufeff **b** &amp; \\[ <b>h</b> #tag | `c`".split(
            " "
        ),
        "\t",
        "\u00a0\n",
        "\n",
        "\n\t",
        "\n\n",
        "\n\n- ",
        "\n\n> ",
        "\n\n1.\t",
        "\n\n# ",
        "\n  - > ",
        "\n===\n\n",
        "\n\n| ",
        "[[LINK]]",
        "![[LINK#h]]",
        "[[LINK|la bel]]",
        "[la `b` el](LINK.md)",
    ]
)


@settings(deadline=None)
@example(["\u00a0\n", "[[LINK]]"], "\n")
@example(["> \u00a0\n>", "[[LINK]]"], "\r\n")
@example(["- a\n\tb", "[[LINK]]"], "\n")
@given(st.lists(PIECES, max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_each_place_is_that_of_the_very_link(pieces: list[str], line_end: str) -> None:
    parts = [it.replace("LINK", f"t{number}") for number, it in enumerate(pieces)]
    content = " ".join(parts).replace("\n", line_end)
    for link in read(content).links:
        (place,) = link.occurrences
        name = link.target.removesuffix(".md")
        (written,) = (
            it
            for it in parts
            if f"{name}]" in it or f"{name}." in it or f"{name}#" in it or f"{name}|" in it
        )
        assert content[place.start : place.end] == written


def test_each_place_is_kept_with_its_sentence_up_to_a_bound() -> None:
    content = "First, see [[x]]. Then\n> quoted [[x]] here. Not this.\n\n" + "[[x]] " * 30
    (link,) = read(content).links
    assert link.count == 32 and len(link.occurrences) == MAX_OCCURRENCES
    assert link.occurrences[0].sentence == "First, see [[x]]."
    assert link.occurrences[1].sentence == "quoted [[x]] here."
    for place in link.occurrences:
        assert content[place.start : place.end] == "[[x]]"


def test_a_link_to_the_document_itself_is_none() -> None:
    assert targets("[[note]] [me](note.md) [[folder/note]] [[Folder/Note.md]] [[other]]") == [
        "note",
        "other",
    ]  # another note may be the one that "note" names: that is seen when it is resolved


def test_windows_line_ends_shift_nothing() -> None:
    content = "one\r\n\r\ntwo [[x]]\r\nthree [[y]]\r\n"
    for link in read(content).links:
        (place,) = link.occurrences
        assert content[place.start : place.end] == f"[[{link.target}]]"


def test_more_targets_than_are_kept_are_counted() -> None:
    found = read("".join(f"[[{i}]] " for i in range(MAX_LINKS + 7)))
    assert (len(found.links), found.omitted) == (MAX_LINKS, 7)


def test_a_document_has_the_names_of_its_path_title_and_folder() -> None:
    names = {it.name: it.rank for it in names_of("A b/Straße/index.md", "The Title", ("Ä",))}
    assert names["id:A b/Straße/index.md"] is Rank.EXACT
    assert names["path:a b/strasse/index"] is Rank.EXACT
    assert names["name:strasse/index.md"] is Rank.SUFFIX
    assert names["name:index"] is Rank.SUFFIX
    assert names["path:a b/strasse"] is Rank.INDEX and names["name:strasse"] is Rank.INDEX
    assert names["name:the title"] is Rank.TITLE and names["name:ä"] is Rank.ALIAS
    assert wiki_name("STRASSE", "x.md") == "name:strasse"
    assert wiki_name("../x", "a/b/c.md") == "path:a/x"


def test_aliases_are_texts_with_commas_or_lists() -> None:
    assert (
        aliases_in("a, b") == ["a", "b"] and aliases_in(7) == [] and aliases_in([1, "c"]) == ["c"]
    )
    found = links_of("d", "", "---\n[: not yaml\n---\n[[x]]", {"aliases": ["z"]})
    assert "name:z" in {it.name for it in found.names} and len(found.links) == 1


PIECES = st.sampled_from(
    ["[[", "]]", "[", "]", "(", ")", "|", "#", "^", "!", "`", "\n", "\n\n", "> ", "- ", "a",
     "b.md", "é", "\\", "---\n", "```\n", " ", "<!--", "-->", "\t", "https:", "\r\n", "[[x]]",
     "|-|\n", "%20"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join))
def test_of_any_text_places_lie_within_and_say_where_the_link_is(content: str) -> None:
    found = read(content)
    for link in found.links:
        assert 1 <= len(link.occurrences) <= link.count
        assert len(link.name.encode()) <= 1_000
        for place in link.occurrences:
            assert 0 <= place.start <= place.end <= len(content)
            assert len(place.sentence) <= 400


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_at_all_is_read(content: str) -> None:
    read(content)


WORD = st.text("abcé ", min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(deadline=None)
@given(st.lists(st.tuples(WORD, WORD), max_size=8), st.sampled_from(["- ", "> ", "", "1. "]))
def test_every_link_that_is_written_in_a_paragraph_is_read(
    pairs: list[tuple[str, str]], prefix: str
) -> None:
    content = "".join(f"{prefix}Say {label} [[{target}]] now.\n\n" for label, target in pairs)
    expected = {wiki_name(target, "folder/note.md") for _, target in pairs}
    found = read(content)
    assert {it.name for it in found.links} == expected
    places = sorted((o.start, o.end) for it in found.links for o in it.occurrences)
    assert [content[start:end] for start, end in places] == [f"[[{t}]]" for _, t in pairs]
