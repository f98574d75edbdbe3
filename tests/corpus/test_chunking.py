"""Cutting by words and by tokens: what a piece holds, where it begins, and that nothing is lost."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from rag_jax.corpus import Chunker, Passage
from rag_jax.corpus.chunking import Cut
from rag_jax.errors import InputError

SIZES = st.tuples(st.integers(1, 6), st.integers(0, 5)).filter(lambda sizes: sizes[1] < sizes[0])
TEXTS = st.text(st.sampled_from("ab é\n \u3000亀🐢")) | st.text(st.characters(exclude_categories=["Cs"]))


def byte_level() -> Tokenizer:
    """A token for every byte, the space before a word too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def word_pieces() -> Tokenizer:
    """BERT's way: a token for a word of a, else one for each letter, within [CLS] … [SEP]."""
    vocabulary = {token: i for i, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "aa", "##aa"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def letters() -> Tokenizer:
    """A token for every letter, none for white space."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    return tokenizer


TOKENIZERS = [byte_level(), word_pieces(), letters()]


def texts(cut: Chunker, text: str) -> list[str]:
    return [piece.text for piece in cut.chunks(Passage("a", "A", text))]


def spaced(text: str) -> bool:
    """Whether no word is longer than one may be in a script without spaces."""
    return all(len(word) <= 8 for word in text.split())


@given(text=TEXTS.filter(spaced), sizes=SIZES)
def test_words_are_cut_as_the_formula_says(text, sizes):
    size, overlap = sizes
    words, pieces = text.split(), texts(Chunker(size, overlap), text)
    if len(words) <= size:
        assert pieces == [text]
        return
    stride = size - overlap
    assert [piece.split() for piece in pieces] == [words[i * stride : i * stride + size] for i in range(len(pieces))]
    assert all(piece == " ".join(piece.split()) for piece in pieces)
    # The last piece ends with the text, the one before it does not.
    last = (len(pieces) - 1) * stride
    assert last - stride + size < len(words) <= last + size


@given(text=TEXTS, size=st.integers(1, 5))
def test_pieces_without_overlap_are_cut_once(text, size):
    cut = Chunker(size)
    pieces = texts(cut, text)
    assert [texts(cut, piece) for piece in pieces] == [[piece] for piece in pieces]


UNSPACED = st.text(st.sampled_from("今天気ไทยก็é\u0301 \nabc/=\u200d👩"), min_size=10, max_size=300)


@given(text=UNSPACED, size=st.integers(1, 6))
def test_text_without_spaces_is_cut_and_loses_nothing(text, size):
    pieces = texts(Chunker(size), text)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    for piece in pieces[1:]:
        assert unicodedata.category(piece[0])[0] != "M" or piece[0] in {word[0] for word in text.split()}
    marks = sum(unicodedata.category(character)[0] == "M" or character == "\u200d" for character in text)
    assert all(len(piece) <= 65 * size + marks for piece in pieces)
    assert [texts(Chunker(size), piece) for piece in pieces] == [[piece] for piece in pieces]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("今天天气很好" * 100, 3),  # 600 characters, two of them a word
        ("สวัสดี" * 100, 2),  # marks count with their letters
        ("https://example.org/" + "a" * 1_580, 2),
        ("one two three " * 100, 3),
        ("\n".join(["今天天气很好今天天气很好"] * 50), 3),
    ],
)
def test_pieces_of_text_without_spaces_are_about_as_long_as_others(text, pieces):
    found = texts(Chunker(100), text)
    assert len(found) in (pieces, pieces + 1)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_pieces_are_numbered_from_the_id_of_their_passage():
    assert list(Chunker(2, 1).chunks(Passage("b", "B", "one two\nthree four"))) == [
        Passage("b", "B", "one two", "b"),
        Passage("b#2", "B", "two three", "b"),
        Passage("b#3", "B", "three four", "b"),
    ]


def test_what_is_not_cut_is_its_own_document_and_what_is_cut_again_keeps_its_own():
    whole, piece = Passage("b", "B", "one two"), Passage("b#2", "B", "one two three", "b")
    assert list(Chunker(2).chunks(whole)) == [whole]
    assert [cut.document for cut in Chunker(2).chunks(piece)] == ["b", "b"]


@pytest.mark.parametrize("tokenizer", [None, letters()], ids=["words", "tokens"])
@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, -2), (3, 3), (3, 4), (3, -1)])
def test_an_overlap_not_below_the_size_is_refused(tokenizer, size, overlap):
    with pytest.raises(InputError, match=r"cannot be( cut; ask for 1 (word|token) at least|; give 0 to 2)$"):
        Chunker(size, overlap, tokenizer)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "word pieces", "letters"])
@given(text=TEXTS, sizes=SIZES)
def test_a_short_text_is_left_and_a_long_one_loses_nothing(tokenizer, text, sizes):
    cut = Chunker(*sizes, tokenizer)
    pieces = texts(cut, text)
    count = len(tokenizer.encode(text.rstrip(), add_special_tokens=False).ids)
    if count <= cut.size:
        assert pieces == [text]
        return
    assert all(piece == piece.strip() != "" and piece in text for piece in pieces)
    if not cut.overlap:  # the pieces are the text, but for white space between them
        assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(character in "".join(pieces) for character in text if not character.isspace())


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=20), size=st.integers(4, 12), data=st.data())
def test_a_piece_is_as_many_whole_words_as_there_is_room_for(lengths, size, data):
    overlap = data.draw(st.integers(0, size - max(lengths)))  # or a word would not fit between two beginnings
    words = [chr(ord("A") + i) * length for i, length in enumerate(lengths)]
    pieces = [piece.split() for piece in texts(Chunker(size, overlap, letters()), " ".join(words))]
    reached = 0
    for number, piece in enumerate(pieces):
        begin = words.index(piece[0])
        end = begin + len(piece)
        assert piece == words[begin:end]
        assert begin <= reached < end  # nothing is lost, and something is new
        assert sum(lengths[begin:end]) <= size < sum(lengths[begin : end + 1]) + (end == len(words)) * size
        assert number == 0 or abs(sum(lengths[begin:reached]) - overlap) < max(lengths)
        reached = end
    assert reached == len(words)


@given(count=st.integers(1, 40), sizes=SIZES)
def test_tokens_that_are_words_are_cut_like_words(count, sizes):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    text = " ".join(f"word{i}" for i in range(count))
    assert texts(Chunker(*sizes, tokenizer), text) == texts(Chunker(*sizes), text)


@pytest.mark.parametrize(
    ("size", "overlap", "text", "expected"),
    [
        (5, 0, "aaa bb a", ["aaa bb", "a"]),
        (4, 0, "aaa bb a", ["aaa", "bb a"]),
        (4, 3, "aa bb aa bb", ["aa bb", "bb aa", "aa bb"]),  # from the word in which the overlap begins
        (3, 0, "aaaaaaa b", ["aaa", "aaa", "a b"]),  # a word that is too long is cut
        (5, 3, "aa bb aaaaaaaaaa", ["aa bb", "aaaaa", "aaaaa", "aaaaa", "aaaa"]),  # "bb" alone would be nothing new
    ],
)
def test_pieces_begin_and_end_between_words(size, overlap, text, expected):
    assert texts(Chunker(size, overlap, letters()), text) == expected


def test_truncation_and_special_tokens_of_the_tokenizer_do_not_count():
    tokenizer = word_pieces()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    assert texts(Chunker(3, 0, tokenizer), "a b a b a b a") == ["a b a", "b a b", "a"]
    assert texts(Chunker(3, 0, tokenizer), "a b a") == ["a b a"]
    assert tokenizer.truncation is not None


def test_a_character_of_several_tokens_is_in_one_piece():
    pieces = texts(Chunker(2, 0, byte_level()), "🐢🐢亀亀")  # 4 bytes and 3
    assert "".join(pieces) == "🐢🐢亀亀"


WORDS, TOKENS = Cut(words=100, overlap=20), Cut(tokens=64, overlap=8)  # of an index


@pytest.mark.parametrize(
    ("asked", "index", "cut"),
    [
        (Cut(), None, Cut()),
        (Cut(words=50), None, Cut(words=50)),
        (Cut(), WORDS, WORDS),
        (Cut(), TOKENS, TOKENS),
        (Cut(words=50), WORDS, Cut(words=50, overlap=20)),
        (Cut(words=50, overlap=0), WORDS, Cut(words=50, overlap=0)),
        (Cut(overlap=3), WORDS, Cut(words=100, overlap=3)),
        (Cut(overlap=3), TOKENS, Cut(tokens=64, overlap=3)),
        (Cut(tokens=32), TOKENS, Cut(tokens=32, overlap=8)),
        (Cut(tokens=32), WORDS, Cut(tokens=32)),
        (Cut(words=50), TOKENS, Cut(words=50)),
    ],
)
def test_what_is_left_open_is_as_the_index_was_split_but_words_and_tokens_share_no_overlap(asked, index, cut):
    assert asked.over(index) == cut
