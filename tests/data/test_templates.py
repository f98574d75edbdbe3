"""A template's special tokens are special, what fills it in is text, as if `tokenizers` had cut the whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from rag_jax.data import templates
from rag_jax.data.tokenizers import GeneratorTokenizer, train_generator_tokenizer
from rag_jax.index.passage_tokenizer import PassageTokenizer

WORDS = st.text("ab </s>{}.", max_size=12)


@pytest.fixture(scope="module")
def words() -> GeneratorTokenizer:
    found = train_generator_tokenizer(["a b ab ba . / the cat sat"] * 3, 300)
    return found._replace(passage_template="{title}</s>{text}", question_template=" <mask> {question}<s>")


def plain(words: GeneratorTokenizer) -> Tokenizer:
    """The same tokenizer as transformers would use it: special tokens are found wherever they are spelt."""
    return Tokenizer.from_str(words.tokenizer.to_str())


def test_a_template_is_cut_at_its_special_tokens(words):
    assert templates.split_at_special_tokens("a</s><s> b", words.tokenizer) == ["a", words.eos, "", words.bos, " b"]
    assert templates.split_at_special_tokens("{title} / {text}", words.tokenizer) == ["{title} / {text}"]
    assert templates.split_at_special_tokens("", words.tokenizer) == [""]


def test_the_longest_special_token_is_found(words):
    tokenizer = plain(words)
    tokenizer.add_special_tokens(["</s></s>"])
    assert templates.split_at_special_tokens("a</s></s>", tokenizer) == ["a", tokenizer.token_to_id("</s></s>"), ""]


@pytest.mark.parametrize(("left", "right"), [(True, False), (False, True), (True, True)])
def test_a_special_token_takes_the_spaces_that_it_takes_in_a_text(words, left, right):
    tokenizer = plain(words)
    tokenizer.add_special_tokens([AddedToken("<gap>", lstrip=left, rstrip=right, special=True)])
    template = "a  <gap> b<gap>"
    row = templates.fill_single_spaced(templates.split_at_special_tokens(template, tokenizer))
    whole = tokenizer.encode(template.replace("  ", " "), add_special_tokens=False).ids
    assert templates.encode(tokenizer, [row]) == [whole]


@settings(max_examples=200, deadline=None)
@given(title=WORDS, text=WORDS, question=WORDS)
def test_only_the_templates_tokens_are_special(words, title, text, question):
    (passage,), (prompt,) = words.passages([(title, text)]), words.prompts([question])
    special = [words.tokenizer.token_to_id(token) for token in ("<s>", "</s>", "<mask>", "<pad>")]
    bos, eos, mask, _ = special
    assert [i for i in passage if i in special] == [bos, *[eos] * bool(title)]
    assert [i for i in prompt if i in special] == [mask, bos, eos]


@settings(max_examples=200, deadline=None)
@given(fields=st.lists(st.text("ab .{}", max_size=6), min_size=3, max_size=3))
def test_where_nothing_spells_a_special_token_it_is_the_text_as_a_whole(words, fields):
    title, text, question = fields[0] or "a", fields[1], fields[2]
    (passage,), (prompt,) = words.passages([(title, text)]), words.prompts([question])
    whole = f"{title}</s>{text} <mask> {question}<s>".replace("  ", " ")
    ids = plain(words).encode(whole, add_special_tokens=False).ids
    assert passage + prompt == [words.bos, *ids, words.eos]


def test_a_tokenizer_sets_its_own_ends_around_a_filled_template(words):
    row = templates.fill_single_spaced(
        templates.split_at_special_tokens("{title}</s>{text}", words.tokenizer), title="</s>", text="a b"
    )
    (title, text) = (words.tokenizer.encode(each, add_special_tokens=False).ids for each in ("</s>", "a b"))
    whole = [words.bos, *title, words.eos, *text, words.eos]
    assert templates.encode_with_special_tokens(words.tokenizer, [row]) == [whole]
    assert templates.encode_with_special_tokens(words.tokenizer, [["a b"]]) == [words.tokenizer.encode("a b").ids]


def test_sentencepiece_puts_a_space_before_the_beginning_of_an_input_alone() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁": 0, "a": 1, "▁a": 2, "<s>": 3, "<unk>": 4}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert templates.encode(tokenizer, [["a"], ["", 3, "a"], ["a", 3, "a"]]) == [[2], [3, 1], [2, 3, 1]]
    assert templates.encode(tokenizer, [["a"], [" a"]], goes_on=True) == [[1], [2]]
    header = GeneratorTokenizer(tokenizer, None, 3, 3, 3, (), passage_template="{text}", question_template="{question}")
    assert header.passages([("", "a")]) == [[2]]
    assert header._replace(header=(3, 1)).passages([("", "a")]) == [[1]]
    keys = {PassageTokenizer(each, 9).key for each in (header, header._replace(header=(3, 1)))}
    assert len(keys) == 2, "tokens of one are not those of the other"


@pytest.mark.parametrize("alone", [True, False])
def test_the_space_of_an_older_sentencepiece_is_before_each_text_that_follows_no_text(alone) -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁a": 0, "a": 1, "▁▁a": 2, "<s>": 3, "<unk>": 4}, unk_token="<unk>"))
    prepend, replace = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([prepend, replace])
    if alone:
        tokenizer.normalizer = prepend
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(["<s>"])
    rows = [["a"], ["", 3, "a"], ["a", 3, "a"]]
    assert templates.encode(tokenizer, rows) == [[0], [3, 0], [0, 3, 0]]
    assert templates.encode(tokenizer, rows) == [tokenizer.encode(each).ids for each in ("a", "<s>a", "a<s>a")]
    assert templates.encode(tokenizer, [["a"], [" a"]], goes_on=True) == [[1], [0]]
    generator = GeneratorTokenizer(tokenizer, None, 3, 3, 3, (), question_template="{question}")
    assert generator.targets(["a"]) == [[0, 3]]
