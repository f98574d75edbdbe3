"""What towers read: pairs cut as transformers cuts them, templates, and what is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertTokenizer

from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.data.tower_inputs import (
    PAIR,
    PLAIN,
    TITLE_AND_TEXT,
    QuestionTokenizer,
    fill_template,
    longest_first,
    tokenize_passages,
    tokenize_texts,
)
from rag_jax.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", *(f"##{letter}" for letter in "abcdefg")]
THEIRS = BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
OURS = THEIRS.backend_tokenizer
TEXTS = st.text(st.sampled_from("abc é\n亀"), max_size=40)


def numbers() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(10)} | {"[SEP]": 10}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 10)])
    return tokenizer


@settings(max_examples=300, deadline=None)
@given(title=TEXTS.filter(bool), text=TEXTS.filter(bool), max_length=st.integers(5, 40))
def test_a_pair_is_cut_as_transformers_cuts_it(title: str, text: str, max_length: int) -> None:
    (row,), (lost,) = tokenize_passages(OURS, [(title, text)], PAIR, max_length)
    assert row == THEIRS(title, text, truncation=True, max_length=max_length)["input_ids"]
    assert lost == len(THEIRS(title, text)["input_ids"]) - len(row)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, max_length=st.integers(5, 40))
def test_without_a_title_a_pair_is_the_text_alone_as_in_dpr_s_own_code(text: str, max_length: int) -> None:
    (row,), (lost,) = tokenize_passages(OURS, [("", text)], PAIR, max_length)
    assert row == THEIRS(text, truncation=True, max_length=max_length)["input_ids"]
    assert lost == len(THEIRS(text)["input_ids"]) - len(row)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(2, 300))
def test_the_longer_of_a_pair_is_cut_first(title: int, text: int, room: int) -> None:
    a, b = longest_first(title, text, room)
    assert a + b == min(room, title + text)
    assert a <= title
    assert b <= text
    if a < title and b < text:
        assert abs(a - b) <= 1
    elif a < title:
        assert a >= b - 1
    elif b < text:
        assert b >= a - 1


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1), max_length=st.integers(2, 20))
def test_a_long_text_keeps_its_last_special_token_and_what_is_lost_is_counted(texts, max_length) -> None:
    rows, lost = tokenize_texts(OURS, texts, max_length)
    assert rows == THEIRS(texts, truncation=True, max_length=max_length)["input_ids"]
    assert [len(row) + n for row, n in zip(rows, lost, strict=True)] == [len(ids) for ids in THEIRS(texts)["input_ids"]]


@pytest.mark.parametrize(
    ("template", "titled", "untitled"),
    [
        (TITLE_AND_TEXT, "T. x", "x"),
        ("{title}", "T", "x"),
        ("passage: {title}\n{text}!", "passage: T\nx!", "passage: x!"),
        ("{text} ({title})", "x (T)", "x"),
        ("passage: {text}", "passage: x", "passage: x"),
        ("passage: {text} ({title})", "passage: x (T)", "passage: x"),
        (
            "{a} {0.__class__} {{}} %s " + TITLE_AND_TEXT,
            "{a} {0.__class__} {{}} %s T. x",
            "{a} {0.__class__} {{}} %s x",
        ),
    ],
)
def test_without_a_title_a_template_loses_what_belongs_to_it(template: str, titled: str, untitled: str) -> None:
    assert (fill_template(template, "T", "x"), fill_template(template, "", "x")) == (titled, untitled)


def test_questions_are_worded_and_cut_and_decoded_without_the_wording() -> None:
    asked = QuestionTokenizer(OURS, "abc {question}", 6)
    assert asked(["a b a b"]) == (THEIRS(["abc a b a b"], truncation=True, max_length=6)["input_ids"], [3])
    assert asked.decode_tokens(["A B a b"]) == ["a b a b"]


@pytest.mark.parametrize("template", ["pairs", "{titel}", "{title", "{}", "", "{title.x}"])
def test_a_template_without_a_passage_is_refused(template: str) -> None:
    told = r'^passage template .*: write \{title\} and \{text\} into it, or "pair"$'
    with pytest.raises(InputError, match=told):
        PLAIN.override(template, None)
    with pytest.raises(InputError, match=r"^question template .*: write \{question\} into it$"):
        PLAIN.override(None, template)


def test_a_pair_needs_room_and_a_tokenizer_that_separates() -> None:
    with pytest.raises(InputError, match="4 tokens have no room for a pair of title and text; give 5 or more"):
        tokenize_passages(OURS, [("a", "b")], PAIR, 4)
    with pytest.raises(InputError, match=r"needs a tokenizer with \[CLS\] and \[SEP\]"):
        tokenize_passages(numbers(), [("1", "2")], PAIR, 9)


TEXT = ignore_special_tokens_in_text(Tokenizer.from_str(OURS.to_str()))  # as a checkpoint's is set when it is loaded


@settings(max_examples=100, deadline=None)
@given(title=TEXTS.filter(bool), text=TEXTS)
def test_what_a_template_spells_of_special_tokens_is_special(title: str, text: str) -> None:
    template = "{title} [SEP] {text}"
    (row,), _ = tokenize_passages(TEXT, [(title, text)], template, 100)
    assert row == THEIRS(f"{title} [SEP] {text}")["input_ids"]
    (asked,), _ = QuestionTokenizer(TEXT, "[MASK] {question}")([text])
    assert asked == THEIRS(f"[MASK] {text}")["input_ids"]


@pytest.mark.parametrize("template", [PAIR, TITLE_AND_TEXT, "{title} [SEP] {text}"])
def test_what_fills_it_in_is_text(template: str) -> None:
    spelt = "a[SEP]b [CLS][MASK]"
    special = {i for i, token in TEXT.get_added_tokens_decoder().items() if token.special and token.content != "[UNK]"}
    (row,), _ = tokenize_passages(TEXT, [(spelt, spelt)], template, 100)
    seps = 1 if template == TITLE_AND_TEXT else 2
    cls, sep = (TEXT.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    assert [i for i in row if i in special] == [cls, *[sep] * seps]
    (asked,), _ = QuestionTokenizer(TEXT)([spelt])
    assert [i for i in asked if i in special] == [cls, sep]
