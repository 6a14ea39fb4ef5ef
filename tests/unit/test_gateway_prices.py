"""The price table: which price holds when, and what is wrong with a bad one."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from quintet_gateway.billing.prices import SHIPPED, PriceTable
from quintet_gateway.yaml_file import FileError, read

HOPS = ("tokenizer", "embedder", "retriever", "generator")


def table(tmp_path: Path, text: str) -> PriceTable:
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return read(path, PriceTable)


def test_the_shipped_table_prices_every_hop_and_no_token() -> None:
    shipped = read(SHIPPED, PriceTable)
    for hop in HOPS:
        price = shipped.of(hop, "any", date(2026, 1, 1))
        assert price is not None
        assert price.compute_per_hour == 80_000
        assert price.input_per_million == price.output_per_million == 0


def test_a_price_holds_from_its_first_day_until_before_its_last(tmp_path: Path) -> None:
    prices = table(
        tmp_path,
        """
        currency: USD
        prices:
          - {hop: generator, model: big, valid_until: 2026-01-01, input_per_million: 1}
          - {hop: generator, model: big, valid_from: 2026-01-01, valid_until: 2026-02-01,
             input_per_million: 2}
        """,
    )

    def price(day: date) -> int | None:
        found = prices.of("generator", "big", day)
        return None if found is None else found.input_per_million

    assert price(date(2025, 12, 31)) == 1
    assert price(date(2026, 1, 1)) == 2
    assert price(date(2026, 1, 31)) == 2
    assert price(date(2026, 2, 1)) is None


def test_a_models_own_price_goes_before_the_price_of_any(tmp_path: Path) -> None:
    prices = table(
        tmp_path,
        """
        currency: USD
        prices:
          - {hop: generator, input_per_million: 1}
          - {hop: generator, model: big, input_per_million: 2}
        """,
    )
    found = [prices.of("generator", model, date(2026, 1, 1)) for model in ("big", "small")]
    assert [it and it.input_per_million for it in found] == [2, 1]
    assert prices.of("embedder", "big", date(2026, 1, 1)) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prices: []", "currency: Field required"),
        ("currency: dollars\nprices: []", "currency: String should match"),
        ("currency: USD\nprices: [{hop: retriever, x: 1}]", "prices.0.x: Extra inputs"),
        ("currency: USD\nprices: [{hop: cook}]", "prices.0.hop: Input should be"),
        (
            "currency: USD\nprices: [{hop: retriever, compute_per_hour: 0.5}]",
            "prices.0.compute_per_hour: Input should be a valid integer",
        ),
        (
            "currency: USD\nprices: [{hop: retriever, input_per_million: -1}]",
            "prices.0.input_per_million: Input should be greater than or equal to 0",
        ),
        (
            "currency: USD\nprices: [{hop: retriever, valid_from: 2026-02-30}]",
            "is not YAML",
        ),
        (
            "currency: USD\nprices: [{hop: retriever, valid_from: 2026-02-02, "
            "valid_until: 2026-02-02}]",
            "prices.0: Value error, valid_until must be after valid_from",
        ),
        (
            "currency: USD\nprices: [{hop: retriever}, {hop: retriever, valid_from: 2026-02-02}]",
            "two prices of retriever '*' are valid on 2026-02-02",
        ),
        ("currency: [", "is not YAML"),
        ("currency: USD\nprices: []\nprices: []", "'prices' stands there twice"),
        (
            "currency: USD\nprices: [{hop: retriever, hop: embedder}]",
            "'hop' stands there twice",
        ),
        (
            "currency: USD\nprices: [{hop: retriever, input_per_million: .nan}]",
            "prices.0.input_per_million: Input should be a valid integer",
        ),
        (
            "currency: USD\nprices: [{hop: retriever, input_per_million: 1000000000001}]",
            "prices.0.input_per_million: Input should be less than or equal to 1000000000000",
        ),
        ("", "the whole: Input should be"),
    ],
)
def test_a_bad_table_is_refused_with_where_and_why(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(FileError, match=r"prices\.yaml") as refused:
        table(tmp_path, text)
    assert fault in str(refused.value)


def test_a_table_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.yaml cannot be read"):
        read(tmp_path / "none.yaml", PriceTable)
