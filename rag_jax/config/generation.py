"""Generation options: validated, and turned into a decoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Key

from rag_jax.core.decode import beam, logits_processors
from rag_jax.core.decode.decoded import Decoder
from rag_jax.core.decode.search import GenerationLimits, LogitsProcessor
from rag_jax.core.variants import VARIANTS, Method, Model
from rag_jax.data.validation import Validated, check_int32
from rag_jax.errors import InputError


@dataclass(frozen=True)
class GenerationConfig(Validated):
    """How answers are found. The default is greedy search; `do_sample` samples `n_best` answers instead."""

    num_beams: int = 1  # width of beam search; 1: greedy
    n_best: int = 1  # answers per question
    method: Method = "thorough"  # of RAG-Sequence: whether every passage scores every hypothesis
    length_penalty: float = 1.0  # beams are ranked by log p / length ** length_penalty
    early_stopping: bool | Literal["never"] = False  # when beam search ends, as in transformers
    min_length: int = 0  # tokens, the end token included
    # tokens, the end token included; None: the model's own decoding.max-length, without one generator.max-target
    max_length: int | None = None
    no_repeat_ngram_size: int = 0  # no n-gram of this size occurs twice in an answer; 0: no constraint
    bad_words: tuple[str, ...] = ()  # words that no answer contains
    do_sample: bool = False  # sample instead of searching
    temperature: float = 1.0  # divides the logits of samples
    top_k: int | None = None  # sample from the k most probable tokens
    top_p: float = 1.0  # sample from the smallest set of tokens with this probability
    min_p: float = 0.0  # sample from tokens at least this probable, relative to the most probable one
    forced_bos: str | None = None  # token that every answer begins with, as for bart-large
    forced_eos: bool = False  # end every answer of maximum length with the end token
    prefill_chunk: int | None = None  # tokens of a long prefix that the decoder reads at once; None: all

    def changed_options(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        defaults = GenerationConfig()
        options = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in options if value != getattr(defaults, name)}

    def with_constraints(self, own: "GenerationConfig") -> "GenerationConfig":
        """These options, with a model's own constraints on answers where they set none."""
        changed = self.changed_options()
        return replace(self, **{name: getattr(own, name) for name in CONSTRAINTS if name not in changed})

    def limits(self, model: Model, trained: GenerationLimits) -> GenerationLimits:
        """The model's limits, narrowed by these options. Raises `InputError` for invalid options."""
        length = trained.max_length if self.max_length is None else self.max_length
        for name, value in self.changed_options().items():
            check_int32(name, value)
        errors = *self._length_errors(length, trained), *self._search_errors(model, length), *self._sampling_errors()
        for error in errors:
            raise InputError(error)
        return trained._replace(max_length=length, prefill_chunk=self.prefill_chunk)

    def _length_errors(self, length: int, trained: GenerationLimits) -> Iterator[str]:
        longest = trained.max_length
        if not 1 <= length <= longest:
            yield f"max_length is {length}, generator.max_target is {longest}; give 1 to {longest}"
        if not 0 <= self.min_length <= length:
            yield f"min_length is {self.min_length}, max_length {length}; give 0 to {length}"
        if self.prefill_chunk is not None and self.prefill_chunk < 1:
            yield f"prefill_chunk is {self.prefill_chunk}; give 1 token or more"
        if self.no_repeat_ngram_size < 0:
            yield f"no_repeat_ngram_size is {self.no_repeat_ngram_size}; give 1 or more, or 0 for none"

    def _search_errors(self, model: Model, length: int) -> Iterator[str]:
        if self.num_beams < 1:
            yield f"num_beams is {self.num_beams}; search with 1 (greedy) or more"
        if self.n_best < 1:
            yield f"n_best is {self.n_best}; ask for 1 answer or more"
        if self.n_best > self.num_beams and not self.do_sample:
            yield f"n_best is {self.n_best}, more than num_beams = {self.num_beams}; ask for 1 to {self.num_beams}"
        most = LARGEST_LOG / math.log(max(length, 2))
        if not abs(self.length_penalty) <= most:
            yield f"length_penalty is {self.length_penalty}, max_length {length}; give -{int(most)} to {int(most)}"
        if self.method not in VARIANTS[model].decoders or (self.do_sample and self.method != GenerationConfig.method):
            yield f"method {self.method} is a search of RAG-Sequence; leave it for other models and for samples"

    def _sampling_errors(self) -> Iterator[str]:
        changed = [name for name in SHAPING if getattr(self, name) != getattr(GenerationConfig, name)]
        if changed and not self.do_sample:
            yield f"{changed[0]} shapes samples, and do_sample is off; turn it on or leave {changed[0]}"
        if self.do_sample and self.num_beams != 1:
            yield f"num_beams is {self.num_beams}, and sampling uses no beams; leave it or turn do_sample off"
        if not LEAST_TEMPERATURE <= self.temperature < math.inf:
            least = f"give a finite number, {LEAST_TEMPERATURE} or more"
            yield f"temperature is {self.temperature}; {least}, or turn do_sample off for the most probable tokens"
        if self.top_k is not None and self.top_k < 1:
            yield f"top_k is {self.top_k}; keep 1 token or more"
        if not 0 < self.top_p <= 1:
            yield f"top_p is {self.top_p}; give a probability above 0"
        if not 0 <= self.min_p <= 1:
            yield f"min_p is {self.min_p}; give a probability"

    def ranking(self, model: Model) -> str:
        """The order of several answers to a question, for display."""
        if self.do_sample:
            return "in the order drawn"
        return "best first, by score" if VARIANTS[model].has_score else BY_LOG_PROB

    def decoder(
        self, model: Model, limits: GenerationLimits, constraints: "ConstraintTokens", keys: Key[Array, " B"]
    ) -> Decoder:
        """The decoder of a model; only sampling uses `keys`, one per question."""
        variant, processors = VARIANTS[model], self._processors(limits, constraints)
        if self.do_sample:
            return partial(
                variant.sample, keys=keys, num_samples=self.n_best, limits=limits, logits_processors=processors
            )
        search = partial(
            beam.search,
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            logits_processors=processors,
        )
        return partial(variant.decoders[self.method], search=search, limits=limits, n_best=self.n_best)

    def _processors(self, limits: GenerationLimits, constraints: "ConstraintTokens") -> tuple[LogitsProcessor, ...]:
        """The processors that these options switch on: constraints, then sampling, forced tokens last."""
        possible = (
            (self.no_repeat_ngram_size > 0, logits_processors.no_repeat_ngram(max(1, self.no_repeat_ngram_size))),
            (bool(constraints.bad_words), logits_processors.bad_words(constraints.bad_words)),
            (self.min_length > 1, logits_processors.min_length(self.min_length, limits.eos)),
            (self.temperature != 1, logits_processors.temperature(self.temperature)),
            (self.top_k is not None, logits_processors.top_k(self.top_k or 1)),
            (self.top_p < 1, logits_processors.top_p(self.top_p)),
            (self.min_p > 0, logits_processors.min_p(self.min_p)),
            (constraints.forced_bos is not None, logits_processors.forced_bos(constraints.forced_bos or 0)),
            (self.forced_eos, logits_processors.forced_eos(limits.max_length, limits.eos)),
        )
        return tuple(processor for is_set, processor in possible if is_set)


class ConstraintTokens(NamedTuple):
    """The options given as words, tokenized."""

    bad_words: tuple[tuple[int, ...], ...]
    forced_bos: int | None


BY_LOG_PROB = "best first, by log p(y|x)"  # RAG-Sequence's and labels'
LARGEST_LOG = 60.0  # of length ** length_penalty, by which float32 scores are divided
LEAST_TEMPERATURE = 1e-6  # by which float32 log-probabilities are divided
SHAPING = ("temperature", "top_k", "top_p", "min_p")
CONSTRAINTS = ("min_length", "no_repeat_ngram_size", "bad_words", "forced_bos", "forced_eos")  # on answers
