"""The cache's memory, envelope and keys."""

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet_servicekit.cache import key_of
from quintet_servicekit.cache.envelope import Envelope, UnreadableError, pack, unpack
from quintet_servicekit.cache.keys import owned, owner_of
from quintet_servicekit.cache.memory import ENTRY_BYTES, Memory

FOREVER = 2**60
OWNERS = ("bees", "ants")
KEYS = [f"{OWNERS[n % 2]}:{key_of(n)[:27]}" for n in range(40)]


def envelope(payload: bytes = b"value", hard_ms: int = FOREVER) -> Envelope:
    return Envelope(payload, 1, min(2, hard_ms), hard_ms, 0.5, False)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "discard"]), st.sampled_from(KEYS), st.integers(0, 3000)
        ),
        max_size=200,
    ),
    st.integers(0, 8000),
)
def test_memory_is_never_above_its_bound_and_what_it_has_is_what_was_put(
    operations: list[tuple[str, str, int]], bound: int
) -> None:
    memory = Memory(bound)
    put: dict[str, bytes] = {}
    for operation, key, size in operations:
        if operation == "put":
            put[key] = bytes(size)
            memory.put(key, envelope(put[key]))
        elif operation == "discard":
            put.pop(key, None)
            memory.discard(key)
        elif (found := memory.get(key, 0)) is not None:
            assert found.payload == put[key]
        kept = [e for k in KEYS if (e := memory.get(k, 0)) is not None]
        assert memory.bytes == sum(len(e.payload) + 32 + ENTRY_BYTES for e in kept) <= bound
        assert len(memory) == len(kept)
        for owner in OWNERS:
            mine = [e for k in KEYS if owner_of(k) == owner and (e := memory.get(k, 0)) is not None]
            assert memory.held(owner) == (
                len(mine),
                sum(len(e.payload) + 32 + ENTRY_BYTES for e in mine),
            )


def test_what_was_used_longest_ago_is_dropped_first() -> None:
    memory = Memory(3 * (ENTRY_BYTES + 10))
    for key in "abc":
        memory.put(key, envelope())
    memory.get("a", 0)
    memory.put("d", envelope())
    assert [key for key in "abcd" if memory.get(key, 0)] == ["a", "c", "d"]


def test_an_entry_ends_at_its_hard_expiry_and_gives_its_bytes_back() -> None:
    memory = Memory(10_000)
    memory.put("a", envelope(hard_ms=1000))
    assert memory.get("a", 999) is not None
    assert memory.get("a", 1000) is None
    assert (len(memory), memory.bytes) == (0, 0)


def test_what_is_larger_than_the_whole_memory_is_not_kept_and_drops_nothing_else() -> None:
    memory = Memory(2000)
    memory.put("a", envelope())
    memory.put("b", envelope(bytes(2000)))
    assert memory.get("a", 0) is not None
    assert memory.get("b", 0) is None


def test_the_fixed_cost_of_an_entry_is_no_less_than_what_it_takes() -> None:
    memory = Memory(2**30)
    rng = random.Random(0)
    now = 1_700_000_000_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(20_000):
            payload = rng.randbytes(64)
            stored = now + n
            memory.put(
                owned(key_of(n)),
                Envelope(payload, stored, stored + n, stored + 2 * n, n / 7, False),
            )
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * memory.bytes < taken < memory.bytes


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 2**40), st.integers(0, 65_535))
def test_an_envelope_comes_back_as_it_was(
    payload: bytes, negative: bool, stored: int, schema: int
) -> None:
    packed = Envelope(payload, stored, stored + 5, stored + 9, 0.25, negative)
    assert unpack(pack(packed, schema), schema) == packed


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda raw: b"",
    "cut": lambda raw: raw[:-1],
    "cut in the header": lambda raw: raw[:20],
    "lengthened": lambda raw: raw + b"x",
    "of another kind": lambda raw: b"\x80\x04" + raw[2:],
    "of a later form": lambda raw: raw[:2] + b"\x02" + raw[3:],
    "text": lambda raw: b'{"answer": "forty-two", "padding": "............................"}',
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_envelope_is_unreadable(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnreadableError):
        unpack(damage(pack(envelope(), 1)), 1)


def test_any_single_changed_byte_makes_an_envelope_unreadable() -> None:
    raw = pack(envelope(), 1)
    for place in range(len(raw)):
        with pytest.raises(UnreadableError):
            unpack(raw[:place] + bytes([raw[place] ^ 0x20]) + raw[place + 1 :], 1)


def test_an_envelope_of_another_schema_is_unreadable() -> None:
    with pytest.raises(UnreadableError):
        unpack(pack(envelope(), 1), 2)


def test_an_envelope_of_impossible_times_is_unreadable() -> None:
    with pytest.raises(UnreadableError):
        unpack(pack(Envelope(b"", 10, 5, 20, 0.0, False), 1), 1)


def test_parts_of_a_key_are_told_apart_by_place_and_type() -> None:
    keys = [
        key_of("ab", "c"),
        key_of("a", "bc"),
        key_of("abc"),
        key_of("abc", ""),
        key_of("a", b"bc"),
        key_of("1"),
        key_of(1),
        key_of(b"1"),
        key_of(-1),
        key_of("s1:a"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and key.isascii() for key in keys)
    assert key_of("a", 1) == key_of("a", 1)
