"""Generation options: which of a model's own stay where others are asked for."""

import pytest

from rag_jax.config.generation import GenerationConfig

OWN = GenerationConfig(
    num_beams=4,
    length_penalty=0.5,
    min_length=2,
    max_length=9,
    no_repeat_ngram_size=3,
    bad_words=("red",),
    forced_bos="<s>",
    forced_eos=True,
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"min_length": 2, "no_repeat_ngram_size": 3, "bad_words": ("red",)}),
        ({"num_beams": 2}, {"num_beams": 2, "min_length": 2, "no_repeat_ngram_size": 3, "bad_words": ("red",)}),
        ({"bad_words": ("blue",)}, {"min_length": 2, "no_repeat_ngram_size": 3, "bad_words": ("blue",)}),
        (
            {"min_length": 1, "no_repeat_ngram_size": 2},
            {"min_length": 1, "no_repeat_ngram_size": 2, "bad_words": ("red",)},
        ),
    ],
)
def test_the_constraints_on_answers_stay_and_the_way_to_find_them_is_the_one_asked_for(asked: dict, expected: dict):
    found = GenerationConfig(**asked).with_constraints(OWN)
    assert found.changed_options() == {**expected, "forced_bos": "<s>", "forced_eos": True}
    assert GenerationConfig(**asked).with_constraints(GenerationConfig()) == GenerationConfig(**asked)
