"""System prompts by name, or as they are."""

import pytest

from rag_jax.data import system_prompts
from rag_jax.errors import InputError


def test_a_name_stands_for_its_text_and_a_text_for_itself() -> None:
    assert system_prompts.text("guardrail") == system_prompts.GUARDRAIL
    assert system_prompts.text("none") == system_prompts.text(None) == system_prompts.text("") == ""
    for prompt in ("Answer briefly.", "Briefly!", "仅根据段落回答问题。"):
        assert system_prompts.text(prompt) == prompt


@pytest.mark.parametrize("word", ["guardrails", "Grounded", "None"])
def test_a_word_that_is_no_name_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=f"system prompt '{word}': none has this name; give none, guardrail, grounded"):
        system_prompts.text(word)
