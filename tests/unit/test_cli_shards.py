"""Shares of many documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_cli.shards import Shard


@given(st.text(), st.integers(1, 50))
def test_every_id_is_in_exactly_one_share(document_id: str, count: int) -> None:
    assert sum(Shard(index, count).has(document_id) for index in range(count)) == 1


def test_shares_are_about_equal_and_the_same_every_time() -> None:
    sizes = [sum(Shard(i, 8).has(f"docs/{n}.md") for n in range(8_000)) for i in range(8)]
    assert sum(sizes) == 8_000
    assert all(900 <= size <= 1_100 for size in sizes)
    assert [i for i in range(8) if Shard(i, 8).has("docs/1.md")] == [SHARE_OF_ONE]


SHARE_OF_ONE = 6
"""Of docs/1.md among eight: it may not change, or a repeated run would take other files."""


@pytest.mark.parametrize("text", ["8/8", "-1/8", "1", "1/0", "a/b", "1/8 ", "", "1/10000000"])
def test_what_names_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not I/N"):
        Shard.parse(text)
