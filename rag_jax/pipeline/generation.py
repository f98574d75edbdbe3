"""Generation options as a model understands them: checked against its limits, words as tokens."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rag_jax.config.generation import ConstraintTokens, GenerationConfig
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.data import validation
from rag_jax.data.tokenizers import GeneratorTokenizer, pad
from rag_jax.errors import InputError
from rag_jax.pipeline.components import Components, token_id
from rag_jax.pipeline.question_batches import power_of_two
from rag_jax.types import Tokens


class Generation(NamedTuple):
    """How one call generates answers."""

    config: GenerationConfig
    limits: GenerationLimits
    constraints: ConstraintTokens


def resolve(components: Components, config: GenerationConfig | None, overrides: Mapping[str, Any]) -> Generation:
    """The given config, or the model's own, with some fields overridden. Raises `InputError` for invalid options."""
    if config is not None and not isinstance(config, GenerationConfig):
        remedy = "give a GenerationConfig, or its fields as keyword arguments"
        raise InputError(f"config is {reprlib.repr(config)}; {remedy}")
    base = components.config.decoding if config is None else config
    own_length = {"max_length": components.config.decoding.max_length} if base.max_length is None else {}
    options = validation.validate_dataclass(GenerationConfig, {**vars(base), **own_length, **overrides})
    limits = options.limits(components.config.model, components.limits)
    return Generation(options, limits, _constraint_tokens(options, components.generator_tokenizer))


def prefix_tokens(prefixes: Sequence[str], generation: Generation, tokenizer: GeneratorTokenizer) -> Tokens:
    """Prefixes of answers as tokens `[B, G]`; a forced first token precedes them. Few widths G are compiled.

    Raises `InputError` for a prefix that leaves an answer no room.
    """
    limits, forced_bos = generation.limits, generation.constraints.forced_bos
    first = [] if forced_bos is None else [forced_bos]
    rows = [[*first, *ids] if ids else [] for ids in tokenizer.prefixes(prefixes)]
    longest = max(map(len, rows), default=0)
    if longest >= limits.max_length:
        room = f"an answer has max_length = {limits.max_length}"
        raise InputError(f"a prefix has {longest} tokens, {room}; shorten it to {limits.max_length - 1} at most")
    width = min(power_of_two(longest), limits.max_length - 1) if longest else 0
    return pad(rows, width, limits.eos)


def label_tokens(labels: Sequence[str], limits: GenerationLimits, tokenizer: GeneratorTokenizer) -> Tokens:
    """Labels as targets `[C, T]`. Raises `InputError` for fewer than two different ones and for one too long."""
    targets = tokenizer.targets(labels)
    if len(set(map(tuple, targets))) < max(2, len(labels)):
        raise InputError(f"labels {list(labels)}; give two or more, all different")
    for label, target in zip(labels, targets, strict=True):
        if len(target) > limits.max_length:
            raise InputError(f"label {label!r} has {len(target)} tokens, more than max_target = {limits.max_length}")
    return pad(targets, max(map(len, targets)), limits.eos)


def _constraint_tokens(config: GenerationConfig, tokenizer: GeneratorTokenizer) -> ConstraintTokens:
    if not all(word.strip() for word in config.bad_words):
        raise InputError(f"bad_words {list(config.bad_words)}: one is empty; leave it out")
    bad_words = tuple(dict.fromkeys(ids for word in config.bad_words for ids in tokenizer.spellings(word)))
    forced = config.forced_bos
    return ConstraintTokens(bad_words, None if forced is None else token_id(tokenizer, forced, "forced_bos"))
