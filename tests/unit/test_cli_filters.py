from __future__ import annotations

import pytest
from google.protobuf.json_format import MessageToDict

from quintet_cli.errors import CliError
from quintet_cli.filters import parsed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-2.5", -2.5),
        ("true", True),
        ("false", False),
        ("null", None),
        ('"5"', "5"),
        ("plain", "plain"),
        ("007", "007"),
        ("2024-01-31", "2024-01-31"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1]", "[1]"),
        ("True", "True"),
    ],
)
def test_values_have_the_type_that_they_read_as(text: str, value: object) -> None:
    found = parsed([f"key={text}"])
    assert found is not None
    assert MessageToDict(found) == {"equals": {"key": "key", "value": value}}


def test_several_keys_must_all_match_and_values_of_one_key_are_alternatives() -> None:
    found = parsed(["lang=en", "year=2024", "lang=de"])
    assert found is not None
    assert MessageToDict(found) == {
        "allOf": {
            "filters": [
                {"oneOf": {"key": "lang", "values": ["en", "de"]}},
                {"equals": {"key": "year", "value": 2024}},
            ]
        }
    }


def test_without_conditions_there_is_no_filter() -> None:
    assert parsed([]) is None


@pytest.mark.parametrize("condition", ["key", "=value", ""])
def test_a_condition_without_key_or_equals_sign_is_a_usage_error(condition: str) -> None:
    with pytest.raises(CliError) as raised:
        parsed([condition])
    assert raised.value.status == 2
