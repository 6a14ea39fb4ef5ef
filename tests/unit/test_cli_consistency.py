from __future__ import annotations

import itertools

import pytest

from quintet_cli.consistency import Newest, required
from quintet_cli.errors import CliError
from quintet_servicekit.consistency import Epoch, encode_token

EPOCHS = [Epoch(1, 9), Epoch(2, 3), Epoch(2, 10)]


def test_without_an_option_the_gateway_chooses() -> None:
    assert required(fresh=False, after=None) is None


@pytest.mark.parametrize(("fresh", "after"), [(True, "token"), (True, ""), (False, "")])
def test_two_demands_and_an_empty_token_are_refused(fresh: bool, after: str) -> None:
    with pytest.raises(CliError) as refused:
        required(fresh=fresh, after=after)
    assert refused.value.advice


@pytest.mark.parametrize("order", list(itertools.permutations(EPOCHS)))
def test_the_newest_token_is_that_of_the_last_write_in_whatever_order_they_come(
    order: tuple[Epoch, ...],
) -> None:
    newest = Newest("books")
    for epoch in order:
        newest.add(encode_token("books", epoch))
        newest.add("")
    assert newest.token == encode_token("books", max(EPOCHS))


def test_of_tokens_of_an_unknown_form_the_last_is_taken() -> None:
    newest = Newest("books")
    for token in (encode_token("books", Epoch(2, 10)), "later form 1", "later form 2"):
        newest.add(token)
    assert newest.token == "later form 2"
