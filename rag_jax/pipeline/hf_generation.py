"""transformers' generation config as the options of decoding here, and back.

Both count an answer's tokens from different places: `max_length` there includes the token that decoding starts from.
"""

import typing
from collections.abc import Mapping
from typing import Any

from rag_jax.config.generation import SHAPING, GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError
from rag_jax.hub.configs import NEUTRAL, RAG_ARCHITECTURES
from rag_jax.pipeline.components import token_id

OPTIONS = (  # here, and there
    ("num_beams", "num_beams"),
    ("n_best", "num_return_sequences"),
    ("length_penalty", "length_penalty"),
    ("early_stopping", "early_stopping"),
    ("min_length", "min_length"),
    ("no_repeat_ngram_size", "no_repeat_ngram_size"),
    ("do_sample", "do_sample"),
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
)
# The settings that are counted with, or are tokens.
COUNTS = (
    *("max_length", "max_new_tokens", "min_new_tokens"),
    *("forced_bos_token_id", "decoder_start_token_id"),
)
THEIR_TOP_K = 50  # transformers' own, where a config says nothing


def from_hf(
    generation: Mapping[str, Any], words: GeneratorTokenizer, where: str, model: Model
) -> tuple[str, GenerationConfig]:
    """The token that decoding starts from, and the options. Raises `InputError` for a setting not known here."""
    for key, neutral in NEUTRAL.items():
        # An empty list suppresses nothing, as None does.
        if generation.get(key, neutral) not in (neutral, None, *(([], {}) if neutral is None else ())):
            remedy = f"set it to {neutral} in a copy, or leave it out"
            raise InputError(f"{where}: generation is to use {key} = {generation[key]}, not known here; {remedy}")
    if generation.get("eos_token_id", words.eos) not in (words.eos, [words.eos]):
        what = f"answers end in token {generation['eos_token_id']}, {words.eos} is the tokenizer's"
        raise InputError(f"{where}: {what}; take the tokenizer that was saved with the weights")
    _check_types(generation, f"{where}: generation: ")
    given = {ours: generation[theirs] for ours, theirs in OPTIONS if generation.get(theirs) is not None}
    if generation.get("min_new_tokens"):  # which do not count the end token
        given["min_length"] = max(given.get("min_length", 0), generation["min_new_tokens"] + 1)
    if given.get("do_sample"):
        given = {"top_k": THEIR_TOP_K, **given}
        given["top_k"] = given["top_k"] or None
    else:
        given = {name: value for name, value in given.items() if name not in SHAPING}
    length = (
        generation.get("max_new_tokens") or (generation.get("max_length") or RAG_ARCHITECTURES[model].max_length) - 1
    )
    forced = generation.get("forced_bos_token_id")
    decoding = GenerationConfig(
        **given,
        max_length=length,
        bad_words=tuple(_bad_word(ids, words, where) for ids in generation.get("bad_words_ids") or ()),
        forced_bos=None if forced is None else _token(forced, words),
        forced_eos=generation.get("forced_eos_token_id") is not None,
    )
    start = generation.get("decoder_start_token_id")
    return _token(words.decoder_start if start is None else start, words), decoding


def to_hf(start: str, decoding: GenerationConfig, words: GeneratorTokenizer, max_length: int) -> dict[str, Any]:
    """What transformers is to be told, so that it decodes as is done here; `max_length` where the options name none."""
    chosen = decoding.changed_options()
    told = {theirs: chosen[ours] for ours, theirs in OPTIONS if ours in chosen}
    if decoding.do_sample:
        told["top_k"] = decoding.top_k or 0
    if decoding.bad_words:
        told["bad_words_ids"] = words.prefixes(decoding.bad_words)
    if decoding.forced_bos is not None:
        told["forced_bos_token_id"] = token_id(words, decoding.forced_bos, "forced_bos")
    if decoding.forced_eos:
        told["forced_eos_token_id"] = words.eos
    return told | {
        **({} if words.bos is None else {"bos_token_id": words.bos}),
        "pad_token_id": words.pad,
        "eos_token_id": words.eos,
        "decoder_start_token_id": token_id(words, start, "generator.start"),
        "max_length": (decoding.max_length or max_length) + 1,
    }


def _check_types(generation: Mapping[str, Any], where: str) -> None:
    """Raises `InputError` for a setting of another type than transformers has it."""
    hints = typing.get_type_hints(GenerationConfig)
    kinds = {theirs: hints[ours] for ours, theirs in OPTIONS} | dict.fromkeys(COUNTS, int)
    for name, kind in (kinds | {"bad_words_ids": tuple[tuple[int, ...], ...]}).items():
        if generation.get(name) is not None:
            validate_value(kind, generation[name], name, where)


def _token(number: int, words: GeneratorTokenizer) -> str:
    """A token by its id; where there is none the id, which `token_id` will not find."""
    found = words.tokenizer.id_to_token(number) if 0 <= number < 2**32 else None
    return found or str(number)


def _bad_word(ids: list[int], words: GeneratorTokenizer, where: str) -> str:
    """The word that these tokens are, which must be these tokens again."""
    word = words.tokenizer.decode(ids, skip_special_tokens=False).strip()
    if words.prefixes([word]) != [ids]:
        raise InputError(f"{where}: bad_words_ids {ids} are no word of the tokenizer; leave them out in a copy")
    return word
