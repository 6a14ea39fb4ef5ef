from __future__ import annotations

import pytest

from quintet_cli.html import text_of


def test_the_title_element_is_the_title() -> None:
    assert text_of("<title> A &amp;\n B </title><h1>Other</h1>") == ("A & B", "Other")


def test_without_a_title_the_first_heading_that_is_not_empty_is_it() -> None:
    title, _ = text_of("<h1> </h1><h2>Real <em>one</em></h2><h1>Later</h1>")
    assert title == "Real one"


def test_without_either_there_is_no_title() -> None:
    assert text_of("<p>Only text") == ("", "Only text")


def test_paragraphs_are_parted_by_an_empty_line_and_spaces_run_together() -> None:
    _, text = text_of("<div><p>One\n  two</p>\n\n<p>three</p></div>four")
    assert text == "One two\n\nthree\n\nfour"


def test_inline_elements_do_not_part_words() -> None:
    assert text_of("<p>un<b>believ</b>able <i>it</i> is</p>")[1] == "unbelievable it is"


def test_scripts_styles_templates_and_drawings_are_not_text() -> None:
    html = """<p>seen</p><script>var a = "<p>no</p>";</script><style>p { color: red }</style>
    <template><p>no</p></template><svg><title>no</title><text>no</text></svg>
    <noscript>no</noscript><p>too</p>"""
    assert text_of(html)[1] == "seen\n\ntoo"


def test_nested_unseen_elements_end_with_the_outermost() -> None:
    html = "a<svg><svg>no</svg>no</svg><template><svg></svg>no</template>b<svg/>c"
    assert text_of(html)[1] == "abc"


def test_comments_are_not_text() -> None:
    assert text_of("a<!-- <p>no</p> -->b")[1] == "ab"


def test_preformatted_text_keeps_its_white_space() -> None:
    _, text = text_of("<p>Code:</p><pre>if x:\n    y()\n</pre><p>after</p>")
    assert text == "Code:\n\nif x:\n    y()\n\nafter"


def test_list_items_and_line_breaks_are_lines_and_cells_are_parted_by_tabs() -> None:
    html = "<ul><li>one</li><li>two<br>more</li></ul><table><tr><td>a</td><td>b</td></tr></table>"
    assert text_of(html)[1] == "one\ntwo\nmore\n\na\tb"


def test_entities_are_their_characters() -> None:
    assert text_of("<p>&lt;tag&gt; &eacute; &#x20AC;</p>")[1] == "<tag> é €"


def test_an_open_title_or_heading_ends_with_the_next_block() -> None:
    assert text_of("<title>T<body><h1>H<p>text") == ("T", "H\n\ntext")
    assert text_of("<h1>H<p>text")[0] == "H"


@pytest.mark.parametrize("html", ["", "<", "<p", "<![CDATA[", "<!-- ", "</p></p></svg>", "&#0;&"])
def test_broken_html_is_read_without_an_error(html: str) -> None:
    title, _ = text_of(html)
    assert title == ""


def test_a_large_document_is_read_in_a_time_that_grows_with_its_size() -> None:
    _, text = text_of("<p>word <b>bold</b></p>\n" * 20_000)
    assert text.count("word bold") == 20_000
