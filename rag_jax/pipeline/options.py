"""The facade's options as typed keyword arguments, for type checkers and for completion in an editor."""

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Int

from rag_jax.core.variants import Method
from rag_jax.pipeline.answers import Answer


class GenerationOptions(TypedDict, total=False):
    """Fields of `GenerationConfig` that a call overrides. A test keeps the two in step."""

    num_beams: int
    n_best: int
    method: Method
    length_penalty: float
    early_stopping: bool | Literal["never"]
    min_length: int
    max_length: int | None
    no_repeat_ngram_size: int
    bad_words: tuple[str, ...]
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    forced_bos: str | None
    forced_eos: bool
    prefill_chunk: int | None


class AnswerOptions(GenerationOptions, total=False):
    """All options of `RAG.answer`."""

    num_docs: int | None
    prefixes: Sequence[str] | str
    rows: Int[np.ndarray, "B K"] | None
    seed: int
    batch_size: int
    attention: bool
    guard: Callable[..., list[Answer]] | None


class PromptOptions(TypedDict, total=False):
    """Fields of the config's `Generator` that make its prompt and that a loaded model may change."""

    chat: bool
    system_prompt: str | None
    question_template: str | None
