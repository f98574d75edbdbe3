"""Conversion of generation configs to and from transformers."""

import json
import re

import pytest
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pretrained
from rag_jax.config.generation import GenerationConfig
from rag_jax.data.tokenizers import generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub.configs import GENERATION, NEUTRAL
from rag_jax.pipeline.hf_generation import continued, from_hf, to_hf

TOKENIZER = generator_tokenizer(pretrained.generator_tokenizer(), "the tokenizer")
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
BART_LARGE_CNN = {
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "length_penalty": 2.0,
    "max_length": 142,
    "min_length": 56,
    "no_repeat_ngram_size": 3,
    "num_beams": 4,
}
shaping = {
    "do_sample": st.just(True),
    "temperature": st.floats(0.1, 5),
    "top_k": st.none() | st.integers(1, 60),
    "top_p": st.floats(0.1, 1),
    "min_p": st.floats(0, 1),
}
beams = {
    "num_beams": st.integers(1, 6),
    "length_penalty": st.floats(-2, 2),
    "early_stopping": st.sampled_from([False, True, "never"]),
}
usual = {
    "n_best": st.integers(1, 6),
    "min_length": st.integers(0, 5),
    "max_length": st.integers(5, 60),
    "no_repeat_ngram_size": st.integers(0, 4),
    "bad_words": st.lists(st.sampled_from(["Aaron", "the Danube", "é", "1.9 million", '"']), unique=True).map(tuple),
    "forced_bos": st.sampled_from([None, "<s>", "</s>"]),
    "forced_eos": st.booleans(),
}
options = st.builds(GenerationConfig, **usual, **beams) | st.builds(GenerationConfig, **usual, **shaping)


def read(model: str = "token", **settings) -> GenerationConfig:
    return from_hf(settings, TOKENIZER, "there", model)[1]


@settings(max_examples=200, deadline=None)
@given(options, st.sampled_from(["<s>", "</s>"]), st.sampled_from(["token", "sequence"]))
def test_the_conversion_to_transformers_round_trips(decoding: GenerationConfig, start: str, model: str) -> None:
    config = to_hf(start, decoding, TOKENIZER, 60)
    assert config.keys() <= GENERATION
    assert from_hf(json.loads(json.dumps(config)), TOKENIZER, "there", model) == (start, decoding)


@settings(max_examples=50, deadline=None)
@given(options)
def test_transformers_accepts_the_settings(decoding: GenerationConfig) -> None:
    assume(decoding.do_sample or decoding.n_best <= decoding.num_beams)
    config = to_hf("</s>", decoding, TOKENIZER, 60)
    accepted = transformers.GenerationConfig(**config)
    assert {name: getattr(accepted, name) for name in config} == config


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_length": 2}, 1),
        ({"max_length": 142}, 141),
        ({"max_new_tokens": 7}, 7),
        ({"max_new_tokens": 7, "max_length": 4}, 7),
    ],
)
def test_lengths_there_count_one_token_more(config: dict, length: int) -> None:
    assert read(**config).max_length == length


@pytest.mark.parametrize(
    ("config", "length"),
    [({"min_length": 9}, 9), ({"min_new_tokens": 3}, 4), ({"min_new_tokens": 3, "min_length": 9}, 9)],
)
def test_new_tokens_do_not_count_the_end(config: dict, length: int) -> None:
    assert read(**config).min_length == length


def test_without_a_length_there_is_transformers_own() -> None:
    """Of its models only RAG-Token counts the start token among the 20."""
    assert [read(model).max_length for model in ("token", "sequence")] == [19, 20]
    assert to_hf("<s>", GenerationConfig(), TOKENIZER, 60)["max_length"] == 61


def test_bart_large_cnn_s_settings() -> None:
    expected = GenerationConfig(
        num_beams=4,
        early_stopping=True,
        length_penalty=2.0,
        min_length=56,
        max_length=141,
        no_repeat_ngram_size=3,
        forced_bos="<s>",
        forced_eos=True,
    )
    assert from_hf(BART_LARGE_CNN, TOKENIZER, "there", "token") == ("</s>", expected)
    assert to_hf("</s>", expected, TOKENIZER, 60) == BART_LARGE_CNN | SPECIAL


def test_samples_are_of_transformers_50_likeliest_tokens_unless_told() -> None:
    assert read(do_sample=True) == GenerationConfig(do_sample=True, top_k=50, max_length=19)
    assert read(do_sample=True, top_k=0).top_k is None
    assert read(do_sample=True, top_k=7, temperature=0.5).top_k == 7
    assert to_hf("<s>", GenerationConfig(do_sample=True), TOKENIZER, 60)["top_k"] == 0


def test_what_shapes_samples_is_left_where_there_are_none() -> None:
    assert read(temperature=0.5, top_k=7, top_p=0.3, min_p=0.1) == GenerationConfig(max_length=19)


def test_bad_words_are_words_with_and_without_a_space_before_them() -> None:
    spaced = TOKENIZER.prefixes(["Aaron", "the Danube"])
    bare = [TOKENIZER.tokenizer.encode(word, add_special_tokens=False).ids for word in ("Aaron", "the Danube")]
    ids = [spaced[0], bare[0], spaced[1], bare[1]]
    for each in (ids, spaced, bare):
        assert read(bad_words_ids=each).bad_words == ("Aaron", "the Danube")
    banned = GenerationConfig(bad_words=("Aaron", "the Danube"))
    assert to_hf("<s>", banned, TOKENIZER, 60)["bad_words_ids"] == ids
    behind_space = TOKENIZER._replace(answer_template="{answer}")  # of a prompt that ends in one
    assert to_hf("<s>", banned, behind_space, 60)["bad_words_ids"] == ids
    part = [TOKENIZER.eos, *spaced[0]]
    with pytest.raises(InputError, match=re.escape(f"there: bad_words_ids {part} are not a word of the tokenizer")):
        read(bad_words_ids=[part])


def test_settings_of_an_answer_that_continues_its_prompt(capsys) -> None:
    """There min_length and no_repeat_ngram_size count the prompt, and a forced token is one of the first position."""
    decoding = GenerationConfig(min_length=8, no_repeat_ngram_size=3, forced_bos="<s>", max_length=60)
    found = continued(to_hf("</s>", decoding, TOKENIZER, 60))
    assert (found["min_new_tokens"], found["max_new_tokens"]) == (7, 60)
    assert not found.keys() & {"min_length", "max_length", "no_repeat_ngram_size", "forced_bos_token_id"}
    said = capsys.readouterr().err
    assert "no_repeat_ngram_size and forced_bos_token_id: transformers applies it to the prompt too" in said
    assert from_hf(found, TOKENIZER, "there", "token")[1].min_length == 8
    assert continued(to_hf("</s>", GenerationConfig(), TOKENIZER, 60)).keys() == {
        *("bos_token_id", "eos_token_id", "pad_token_id", "max_new_tokens")
    }
    assert capsys.readouterr().err == ""


def test_another_forced_end_is_refused() -> None:
    with pytest.raises(InputError, match="there: forced_eos_token_id is 5, the tokenizer's end is 2; leave it out"):
        read(forced_eos_token_id=5)
    assert read(forced_eos_token_id=2).forced_eos


@pytest.mark.parametrize("key", NEUTRAL)
def test_a_setting_that_is_not_known_here_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"^there: generation has {key} = 1.2, which is not supported; ") as raised:
        read(**{key: 1.2})
    assert "\n" not in str(raised.value)
    assert read(**{key: NEUTRAL[key]}) == read(**{key: None}) == read()


@pytest.mark.parametrize("ends", [5, [2, 5], [5]])
def test_another_end_token_than_the_tokenizer_s_is_refused(ends: int | list[int]) -> None:
    with pytest.raises(InputError, match=re.escape(f"there: answers end in token {ends}, 2 is the tokenizer's; ")):
        read(eos_token_id=ends)
    assert read(eos_token_id=2) == read(eos_token_id=[2]) == read()


def test_a_start_that_is_no_token_is_refused() -> None:
    with pytest.raises(InputError, match=r"generator\.start is 'beginning', no token of the generator"):
        to_hf("beginning", GenerationConfig(), TOKENIZER, 60)


def test_tokens_that_the_vocabulary_has_not_are_kept_to_be_refused() -> None:
    start, decoding = from_hf(
        {"decoder_start_token_id": 9_999, "forced_bos_token_id": 9_998}, TOKENIZER, "there", "token"
    )
    assert (start, decoding.forced_bos) == ("9999", "9998")
    with pytest.raises(InputError, match=r"forced_bos is '9998', no token of the generator"):
        to_hf("<s>", decoding, TOKENIZER, 60)


@pytest.mark.parametrize("key", [key for key, neutral in NEUTRAL.items() if neutral is None])
def test_nothing_to_suppress_is_the_same_as_no_setting(key: str) -> None:
    assert read(**{key: []}) == read(**{key: {}}) == read()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"num_beams": "4"}, "num_beams is '4'; give a whole number"),
        ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes'; give true or false or 'never'"),
        ({"num_return_sequences": 1.5}, "num_return_sequences is 1.5; give a whole number"),
        ({"max_length": "20"}, "max_length is '20'; give a whole number"),
        ({"bad_words_ids": [3]}, "bad_words_ids is [3]; give a list, each a list, each a whole number"),
        ({"forced_bos_token_id": "<s>"}, "forced_bos_token_id is '<s>'; give a whole number"),
    ],
)
def test_a_setting_of_another_type_is_named(settings: dict, what: str) -> None:
    with pytest.raises(InputError, match=f"^there: generation: {re.escape(what)}$"):
        read(**settings)


@pytest.mark.parametrize("number", [-1, 2**40])
def test_a_number_that_no_token_has_is_kept_too(number: int) -> None:
    assert read(forced_bos_token_id=number).forced_bos == str(number)


def test_a_start_that_is_null_is_the_usual_one() -> None:
    config = {"decoder_start_token_id": None}
    assert from_hf(config, TOKENIZER, "there", "token") == from_hf({}, TOKENIZER, "there", "token")
