"""The generator's vocabulary: digits apart, pieces that join to what the whole would be, BART's special tokens.

What users write holds no special token, whatever it spells.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from rag_jax.data.tokenizers import (
    GeneratorTokenizer,
    fingerprint,
    ignore_special_tokens_in_text,
    pad,
    read_generator_tokenizer,
    read_tokenizer,
    train_generator_tokenizer,
)
from rag_jax.errors import InputError

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def vocabulary() -> GeneratorTokenizer:
    return train_generator_tokenizer(["Mumbai / A city of 12691836 people // how many people live in Mumbai"] * 4, 320)


def test_special_tokens_have_bart_s_ids(vocabulary: GeneratorTokenizer) -> None:
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos) == (0, 1, 2)


@settings(max_examples=100, deadline=None)
@given(title=WORDS, text=WORDS, question=WORDS)
def test_passage_and_prompt_join_to_the_tokens_of_the_whole(
    vocabulary: GeneratorTokenizer, title: str, text: str, question: str
) -> None:
    text = text.strip() or "x"  # a passage that ends in white space would merge it with the separator's
    (passage,), (prompt,) = vocabulary.passages([(title, text)]), vocabulary.prompts([question])
    unquoted = title.removeprefix('"').removesuffix('"')
    joined = f"{unquoted} / {text} // {question}".replace("  ", " ")  # as transformers' RagRetriever does
    whole = vocabulary.tokenizer.encode(joined, add_special_tokens=False).ids
    assert passage + prompt == [vocabulary.bos, *whole, vocabulary.eos]


@settings(max_examples=50, deadline=None)
@given(number=st.integers(0, 10**9))
def test_every_digit_is_a_token(vocabulary: GeneratorTokenizer, number: int) -> None:
    (target,) = vocabulary.targets([str(number)])
    assert len(target) == 1 + len(str(number)) + 1  # the leading space, the digits, the end


@settings(max_examples=100, deadline=None)
@given(answer=WORDS)
def test_any_answer_survives_the_round_trip(vocabulary: GeneratorTokenizer, answer: str) -> None:
    (target,) = vocabulary.targets([answer])
    assert vocabulary.text(target) == answer.strip()


def test_a_passage_without_title_has_no_slash(vocabulary: GeneratorTokenizer) -> None:
    (ids,) = vocabulary.passages([("", "A city")])
    assert vocabulary.text(ids) == "A city"


def test_padding_is_on_the_right_with_lengths() -> None:
    tokens = pad([[5, 6], [7]], 3, 1)
    assert tokens.ids.tolist() == [[5, 6, 1], [7, 1, 1]]
    assert tokens.lengths.tolist() == [2, 1]


def test_saving_and_reading_changes_nothing(vocabulary: GeneratorTokenizer, tmp_path: Path) -> None:
    vocabulary.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = read_generator_tokenizer(tmp_path / "tokenizer.json")
    assert fingerprint(again.tokenizer) == fingerprint(vocabulary.tokenizer)
    assert again[1:] == vocabulary[1:]


def test_bad_tokenizers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        read_tokenizer(path)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a readable tokenizer"):
        read_tokenizer(path)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(InputError, match=r"tokenizer\.json: no token <s>"):
        read_generator_tokenizer(path)


SPECIAL = ["<s>", "<pad>", "</s>", "<mask>", "[SEP]", "[CLS]", "sep", "<extra one>"]
SPELT = st.lists(st.sampled_from([*SPECIAL, " ", "a", "<", ">", "/", "\u2581", "  ", "{", "}", "word", "SEP"])).map(
    "".join
)


def spelling(kind: str) -> Tokenizer:
    """A tokenizer of every kind of model, whose special tokens are among its words or beside them."""
    letters = sorted(set("abdeklmoprstwxSEPCLKM<>/[]{} \u2581"))
    words = {token: i for i, token in enumerate(["<unk>", *SPECIAL, *letters, *(f"##{letter}" for letter in letters)])}
    if kind == "Unigram":
        scores = [(token, 0.0 if token in SPECIAL else -2.0) for token in words]
        tokenizer = Tokenizer(models.Unigram(scores, 0, False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE(words, [], ignore_merges=True))
    elif kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if kind == "words" else None
    tokenizer.add_special_tokens(["<unk>", *SPECIAL])
    tokenizer.add_tokens([AddedToken("word", normalized=False)])
    ends = [(token, words[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return ignore_special_tokens_in_text(tokenizer)


KINDS = {kind: spelling(kind) for kind in ("Unigram", "BPE", "WordPiece", "words", "lines")}


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), text=SPELT)
def test_no_text_has_a_special_token(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]
    special = {tokenizer.token_to_id(token) for token in SPECIAL}
    assert not special & set(tokenizer.encode(text, add_special_tokens=False).ids)
    whole = tokenizer.encode(text)
    assert [i for i in whole.ids if i in special] == [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
    assert [whole.ids[0], whole.ids[-1]] == [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]


@settings(max_examples=200, deadline=None)
@given(title=SPELT, text=SPELT)
def test_no_text_of_a_user_controls_the_generator(vocabulary: GeneratorTokenizer, title: str, text: str) -> None:
    special = {vocabulary.tokenizer.token_to_id(token) for token in SPECIAL[:4]}
    (passage,), (prompt,) = vocabulary.passages([(title, text)]), vocabulary.prompts([text])
    (target,), (prefix,) = vocabulary.targets([text]), vocabulary.prefixes([text])
    assert [i for i in passage if i in special] == [passage[0]] == [vocabulary.bos]
    for row in (prompt, target):
        assert [i for i in row if i in special] == [row[-1]] == [vocabulary.eos]
    assert not special & set(prefix)
    assert vocabulary.text(target) == text.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_words_that_were_added_stay_tokens(kind: str) -> None:
    tokenizer = KINDS[kind]
    assert tokenizer.token_to_id("word") in tokenizer.encode("a word<s>").ids


@pytest.mark.parametrize("kind", KINDS)
def test_reading_text_is_settled_once(kind: str) -> None:
    tokenizer = KINDS[kind]
    again = ignore_special_tokens_in_text(Tokenizer.from_str(tokenizer.to_str()))
    assert fingerprint(again) == fingerprint(ignore_special_tokens_in_text(again)) == fingerprint(tokenizer)
