"""How answers are found: the options a user has, checked, and the decoder that they make."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Key

from rag_jax.core.decode import beam, logits_processors
from rag_jax.core.decode.decoding import Decoder
from rag_jax.core.decode.search import GenerationLimits, LogitsProcessor
from rag_jax.core.variants import VARIANTS, Method, Model
from rag_jax.errors import InputError


@dataclass(frozen=True)
class GenerationConfig:
    """How answers are found. The defaults are greedy; `sample` draws `n_best` answers instead of searching."""

    num_beams: int = 1
    n_best: int = 1  # answers to each question
    method: Method = "thorough"  # of RAG-Sequence: whether all passages judge every proposal
    length_penalty: float = 1.0  # beams rank by log p / length ** length_penalty
    early_stopping: bool | Literal["never"] = False  # as in transformers; see rag_jax.core.decode.beam
    min_length: int = 0  # tokens, the end token included
    max_length: int | None = None  # tokens, the end token included; None: as in training
    no_repeat_ngram_size: int = 0  # n; no n tokens twice in an answer
    bad_words: tuple[str, ...] = ()  # that no answer holds
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    forced_bos: str | None = None  # a token that every answer begins with, as bart-large's do
    forced_eos: bool = False  # the end token last, where an answer has no room for more
    prefill_chunk: int | None = None  # tokens of a long prefix that pass through the decoder at once

    def changed_options(self) -> dict[str, Any]:
        """The options that are not the usual ones, by name."""
        usual = GenerationConfig()
        named = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in named if value != getattr(usual, name)}

    def limits(self, model: Model, trained: GenerationLimits) -> GenerationLimits:
        """The model's limits with these in them. Raises `InputError` for what it or these options do not allow."""
        length = trained.max_length if self.max_length is None else self.max_length
        for complaint in (*self._about_lengths(length, trained), *self._about_search(model), *self._about_samples()):
            raise InputError(complaint)
        return trained._replace(max_length=length, prefill_chunk=self.prefill_chunk)

    def _about_lengths(self, length: int, trained: GenerationLimits) -> Iterator[str]:
        longest = trained.max_length
        if not 1 <= length <= longest:
            yield f"max_length is {length}, the model was trained with {longest}; give 1 to {longest}"
        if not 0 <= self.min_length <= length:
            yield f"min_length is {self.min_length}, max_length {length}; give 0 to {length}"
        if self.prefill_chunk is not None and self.prefill_chunk < 1:
            yield f"prefill_chunk is {self.prefill_chunk}; give 1 token or more"
        if self.no_repeat_ngram_size < 0:
            yield f"no_repeat_ngram_size is {self.no_repeat_ngram_size}; give 1 or more, or 0 for none"

    def _about_search(self, model: Model) -> Iterator[str]:
        if self.num_beams < 1:
            yield f"num_beams is {self.num_beams}; search with 1 (greedy) or more"
        if self.n_best < 1:
            yield f"n_best is {self.n_best}; ask for 1 answer or more"
        if self.n_best > self.num_beams and not self.do_sample:
            yield f"n_best is {self.n_best}, more than num_beams = {self.num_beams}; ask for 1 to {self.num_beams}"
        if not math.isfinite(self.length_penalty):
            yield f"length_penalty is {self.length_penalty}; give a finite number"
        if self.method not in VARIANTS[model].decoders or (self.do_sample and self.method != GenerationConfig.method):
            yield f"method {self.method} is a search of RAG-Sequence; leave it for RAG-Token and for samples"

    def _about_samples(self) -> Iterator[str]:
        changed = [name for name in SHAPING if getattr(self, name) != getattr(GenerationConfig, name)]
        if changed and not self.do_sample:
            yield f"{changed[0]} shapes samples, and do_sample is off; turn it on or leave {changed[0]}"
        if self.do_sample and self.num_beams != 1:
            yield f"num_beams is {self.num_beams}, and samples are drawn without beams; leave it or turn do_sample off"
        if not 0 < self.temperature < math.inf:
            yield f"temperature is {self.temperature}; give a finite number above 0"
        if self.top_k is not None and self.top_k < 1:
            yield f"top_k is {self.top_k}; keep 1 token or more"
        if not 0 < self.top_p <= 1:
            yield f"top_p is {self.top_p}; give a probability above 0"
        if not 0 <= self.min_p <= 1:
            yield f"min_p is {self.min_p}; give a probability"

    def ranking(self, model: Model) -> str:
        """What several answers to a question are ranked by, in words."""
        if self.do_sample:
            return "in the order drawn"
        return "best first, by score" if VARIANTS[model].has_score else BY_LOG_PROB

    def decoder(
        self, model: Model, limits: GenerationLimits, words: "ConstraintTokens", keys: Key[Array, " B"]
    ) -> Decoder:
        """The decoder of RAG-"token" or RAG-"sequence"; `keys` are used by samples only, one for each question."""
        variant, obeyed = VARIANTS[model], self._rules(limits, words)
        if self.do_sample:
            return partial(variant.sample, keys=keys, num_samples=self.n_best, limits=limits, logits_processors=obeyed)
        search = partial(
            beam.search,
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            logits_processors=obeyed,
        )
        return partial(variant.decoders[self.method], search=search, limits=limits, n_best=self.n_best)

    def _rules(self, limits: GenerationLimits, words: "ConstraintTokens") -> tuple[LogitsProcessor, ...]:
        """Constraints, then what shapes a distribution, each where it changes anything; a forced token last."""
        possible = (
            (self.no_repeat_ngram_size > 0, logits_processors.no_repeat_ngram(max(1, self.no_repeat_ngram_size))),
            (bool(words.bad_words), logits_processors.bad_words(words.bad_words)),
            (self.min_length > 1, logits_processors.min_length(self.min_length, limits.eos)),
            (self.temperature != 1, logits_processors.temperature(self.temperature)),
            (self.top_k is not None, logits_processors.top_k(self.top_k or 1)),
            (self.top_p < 1, logits_processors.top_p(self.top_p)),
            (self.min_p > 0, logits_processors.min_p(self.min_p)),
            (words.forced_bos is not None, logits_processors.forced_bos(words.forced_bos or 0)),
            (self.forced_eos, logits_processors.forced_eos(limits.max_length, limits.eos)),
        )
        return tuple(rule for wanted, rule in possible if wanted)


class ConstraintTokens(NamedTuple):
    """The options that are words, as tokens."""

    bad_words: tuple[tuple[int, ...], ...]
    forced_bos: int | None


BY_LOG_PROB = "best first, by log p(y|x)"  # RAG-Sequence's and labels'
SHAPING = ("temperature", "top_k", "top_p", "min_p")
