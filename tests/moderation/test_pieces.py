"""Long texts in pieces."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rag_jax.moderation import pieces


def test_a_text_that_fits_is_one_piece():
    assert pieces.split("all of it", lambda text: True) == ["all of it"]


def test_it_is_cut_between_words():
    assert pieces.split("one two three four", lambda text: len(text) <= 14) == ["one two three", "two three four"]


@given(st.lists(st.integers(1, 12), max_size=20), st.integers(1, 9))
def test_every_piece_fits_and_every_word_is_read_in_order(lengths, limit):
    """No character occurs twice, so that the place of each piece is known."""
    letters = iter(map(chr, range(0x4E00, 0x9000)))
    text = " ".join("".join(itertools.islice(letters, length)) for length in lengths)
    found = pieces.split(text, lambda piece: len(piece) <= limit)
    assert all(len(piece) <= limit for piece in found)
    end = 0
    for piece in map(str.strip, found):
        begin = text.index(piece)
        assert not text[end:begin].strip(), "what is between two pieces is no word"
        end = begin + len(piece)
    assert end == len(text)


def test_neighbours_share_words():
    words = [f"w{number}" for number in range(40)]
    found = [piece.split() for piece in pieces.split(" ".join(words), lambda text: len(text.split()) <= 12)]
    for before, after in itertools.pairwise(found):
        assert {*before} & {*after}
    assert {word for piece in found for word in piece} == {*words}


@pytest.mark.parametrize("text", ["x" * 100, "x " + "y" * 99])
def test_a_word_that_is_too_long_is_cut(text):
    assert max(map(len, pieces.split(text, lambda piece: len(piece) <= 7))) <= 7
