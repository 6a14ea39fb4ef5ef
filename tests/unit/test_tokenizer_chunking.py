"""Chunks and truncated texts are counted as they will be read.

The tokenizer is a byte-level one made here: a character may take several tokens, and
what a token's letters become depends on the space before them, so a piece of a text
may well have more tokens than it had in the whole.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from quintet_tokenizer.chunking import MAX_CHARS_PER_TOKEN, chunk_texts
from quintet_tokenizer.models import Side
from quintet_tokenizer.tokenizer import LoadedTokenizer, blocks
from quintet_tokenizer.truncation import truncate_texts

_CORPUS = [
    "the quick brown fox jumps over the lazy dog while counterintuitive words like "
    "internationalization and electroencephalography stay whole"
] * 20
TEXTS = st.one_of(
    st.text(max_size=150),
    st.lists(
        st.sampled_from(
            [
                " internationalization",
                "internationalization",
                " the",
                "fox.",
                "\n\n",
                "漢",
                "👩🏽",
                " ",
            ]
        ),
        max_size=60,
    ).map("".join),
)


def _byte_level() -> LoadedTokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return LoadedTokenizer(tokenizer.to_str().encode())


TOKENIZER = _byte_level()


@given(TEXTS, st.integers(8, 40), st.data())
def test_chunks_counted_alone_keep_their_bound_and_hold_the_text(
    text: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, (max_tokens - 1) // 2))
    (chunked,) = chunk_texts(
        [text], TOKENIZER, max_tokens=max_tokens, overlap=overlap, markdown=True
    )

    covered: set[int] = set()
    for (start, end), tokens, _ in chunked.chunks:
        piece = text[start:end]
        assert piece.strip() == piece
        assert TOKENIZER.count([piece]) == [tokens]
        assert 1 <= tokens <= max_tokens
        assert len(piece) <= MAX_CHARS_PER_TOKEN * max_tokens
        covered |= set(range(start, end))
    assert all(character.isspace() or at in covered for at, character in enumerate(text))
    assert [chunk.span.start for chunk in chunked.chunks] == sorted(
        chunk.span.start for chunk in chunked.chunks
    )
    assert chunked.tokens == TOKENIZER.count([text])[0]


def test_a_piece_that_has_more_tokens_alone_is_cut_again() -> None:
    # Without its space a word of the training text is a row of smaller tokens.
    text = " internationalization" * 8
    assert TOKENIZER.count([text]) == [8]
    assert TOKENIZER.count([text.strip()])[0] > 8
    (chunked,) = chunk_texts([text], TOKENIZER, max_tokens=8, overlap=0, markdown=False)
    assert len(chunked.chunks) > 1
    assert all(chunk.tokens <= 8 for chunk in chunked.chunks)


def test_a_character_of_more_tokens_than_a_chunk_holds_is_a_chunk() -> None:
    (chunked,) = chunk_texts(["漢"], TOKENIZER, max_tokens=2, overlap=0, markdown=False)
    assert [(chunk.span, chunk.tokens) for chunk in chunked.chunks] == [((0, 1), 3)]


@given(TEXTS, st.integers(1, 30), st.sampled_from(Side))
def test_a_truncated_text_keeps_its_other_end_within_the_bound(
    text: str, max_tokens: int, side: Side
) -> None:
    (result,) = truncate_texts([text], TOKENIZER, max_tokens=max_tokens, side=side)

    start, end = result.span
    assert TOKENIZER.count([text[start:end]]) == [result.tokens]
    assert result.tokens <= max_tokens
    assert result.original_tokens == TOKENIZER.count([text])[0]
    if result.original_tokens <= max_tokens:
        assert (start, end) == (0, len(text))
    else:
        assert start == 0 if side is Side.END else end == len(text)


def test_a_first_character_that_does_not_fit_leaves_an_empty_text() -> None:
    (end, start) = (
        truncate_texts(["漢字"], TOKENIZER, max_tokens=2, side=side)[0].span for side in Side
    )
    assert (end, start) == ((0, 0), (2, 2))


def test_what_the_file_prescribes_about_truncation_and_padding_is_turned_off() -> None:
    assert TOKENIZER.count([" the" * 20, ""]) == [20, 0]
    assert len(TOKENIZER.encode([" the" * 20], special=True, offsets=False)[0].ids) == 20


@given(TEXTS, st.integers(1, 12))
def test_blocks_make_up_the_text(text: str, size: int) -> None:
    spans = list(blocks(text, size))
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(end - start <= size for start, end in spans)


def test_blocks_are_cut_at_white_space_where_there_is_any() -> None:
    text = "aaa bbb  ccc dddddd"
    assert [text[a:b] for a, b in blocks(text, 6)] == ["aaa", " bbb ", " ccc", " ddddd", "d"]


def test_a_long_text_has_as_many_tokens_in_blocks_as_whole() -> None:
    text = "the quick brown\n\nfox  jumps over the lazy dog\t" * 3_000
    whole = TOKENIZER.encode([text], special=False, offsets=True)[0]
    assert TOKENIZER.count([text, "the"]) == [len(whole.ids), *TOKENIZER.count(["the"])]
    (offsets,) = TOKENIZER.offsets([text])
    assert offsets.tolist() == [list(offset) for offset in whole.offsets or ()]


def test_bytes_that_are_no_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError):
        LoadedTokenizer(b"{}")


def test_a_panic_of_the_library_is_an_ordinary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panicking:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise PanicException

    tokenizer = _byte_level()
    monkeypatch.setattr(tokenizer, "_tokenizer", Panicking())
    with pytest.raises(RuntimeError, match="panicked"):
        tokenizer.count(["long enough for a batch" * 100])


def test_a_word_whose_parts_have_more_tokens_than_it_had_is_left_out() -> None:
    (result,) = truncate_texts(["0 internationalization"], TOKENIZER, max_tokens=1, side=Side.START)
    assert result.tokens <= 1
    assert result.span.end == len("0 internationalization")
