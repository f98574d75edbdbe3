"""System prompts by name: `generator.system_prompt` and `--system-prompt` take one of these, or the text itself.

A change of a text changes what models answer: `rag-jax evaluate` states the text in metrics.json, not the name.
"""

import re

from rag_jax.errors import InputError

GUARDRAIL = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. Avoid harmful, unethical, "
    "prejudiced, or negative content. Ensure replies promote fairness and positivity."
)
"""Mistral 7B's (Jiang et al. 2023, section 5.1): it declined all of 175 unsafe prompts, for 0.26 points of MT-Bench."""

GROUNDED = "Answer only from the passages. If they do not contain the answer, say so."

NAMED = {"none": "", "guardrail": GUARDRAIL, "grounded": GROUNDED}


def text(prompt: str | None) -> str:
    """The text of a system prompt, given by its name or as it is; "" for none.

    Raises `InputError` for a single word that is no name, which is more likely a typo than a prompt.
    """
    if not prompt:
        return ""
    if prompt in NAMED:
        return NAMED[prompt]
    if re.fullmatch(r"[A-Za-z_-]+", prompt):
        raise InputError(f"system prompt {prompt!r}: none has this name; give {', '.join(NAMED)}, or a sentence")
    return prompt
