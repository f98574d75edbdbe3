"""Convert between transformers' generation config and `GenerationConfig`.

transformers' `max_length` includes the start token; ours does not.
"""

import typing
from collections.abc import Mapping
from typing import Annotated, Any

from rag_jax.config.generation import SHAPING, GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.data.validation import Range, validate_value
from rag_jax.errors import InputError, warn
from rag_jax.hub.configs import DEFAULT_MAX_LENGTH, NEUTRAL, RAG_ARCHITECTURES
from rag_jax.pipeline.components import token_id

OPTIONS = (  # our name, transformers' name
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
TokenId = Annotated[int, Range(0, 2**32 - 1)]
# Integer settings: counts and token ids.
COUNTS = (
    *("max_length", "max_new_tokens", "min_new_tokens"),
    *("forced_bos_token_id", "decoder_start_token_id"),
)
OF_ANSWERS = ("no_repeat_ngram_size", "forced_bos_token_id")  # here; in transformers of prompt and answer
HF_DEFAULT_TOP_K = 50  # of transformers, where a config has none


def from_hf(
    generation: Mapping[str, Any], tokenizer: GeneratorTokenizer, where: str, model: Model
) -> tuple[str, GenerationConfig]:
    """The start token and the generation config. Raises `InputError` for a setting that is not supported here."""
    for key, neutral in NEUTRAL.items():
        # An empty list suppresses nothing, as None does.
        if generation.get(key, neutral) not in (neutral, None, *(([], {}) if neutral is None else ())):
            remedy = f"set it to {neutral} in a copy, or leave it out"
            raise InputError(f"{where}: generation has {key} = {generation[key]}, which is not supported; {remedy}")
    if generation.get("eos_token_id", tokenizer.eos) not in (tokenizer.eos, [tokenizer.eos]):
        what = f"answers end in token {generation['eos_token_id']}, {tokenizer.eos} is the tokenizer's"
        raise InputError(f"{where}: {what}; use the tokenizer that was saved with the weights")
    _check_types(generation, f"{where}: generation: ")
    options = {ours: generation[theirs] for ours, theirs in OPTIONS if generation.get(theirs) is not None}
    if generation.get("min_new_tokens"):  # excludes the end token
        options["min_length"] = max(options.get("min_length", 0), generation["min_new_tokens"] + 1)
    if options.get("do_sample"):
        options = {"top_k": HF_DEFAULT_TOP_K, **options}
        options["top_k"] = options["top_k"] or None
    else:
        options = {name: value for name, value in options.items() if name not in SHAPING}
    default = RAG_ARCHITECTURES[model].max_length if model in RAG_ARCHITECTURES else DEFAULT_MAX_LENGTH
    length = generation.get("max_new_tokens") or (generation.get("max_length") or default) - 1
    if generation.get("forced_eos_token_id", tokenizer.eos) not in (tokenizer.eos, [tokenizer.eos], None):
        what = f"forced_eos_token_id is {generation['forced_eos_token_id']}, the tokenizer's end is {tokenizer.eos}"
        raise InputError(f"{where}: {what}; leave it out in a copy")
    forced = generation.get("forced_bos_token_id")
    decoding = GenerationConfig(
        **options,
        max_length=length,
        bad_words=tuple(
            dict.fromkeys(_bad_word(ids, tokenizer, where) for ids in generation.get("bad_words_ids") or ())
        ),
        forced_bos=None if forced is None else _token(forced, tokenizer),
        forced_eos=generation.get("forced_eos_token_id") is not None,
    )
    start = generation.get("decoder_start_token_id")
    return _token(tokenizer.decoder_start if start is None else start, tokenizer), decoding


def to_hf(start: str, decoding: GenerationConfig, tokenizer: GeneratorTokenizer, max_length: int) -> dict[str, Any]:
    """The settings with which transformers decodes the same; `max_length` is used where `decoding` has none."""
    changed = decoding.changed_options()
    settings = {theirs: changed[ours] for ours, theirs in OPTIONS if ours in changed}
    if decoding.do_sample:
        settings["top_k"] = decoding.top_k or 0
    if decoding.bad_words:
        settings["bad_words_ids"] = [list(ids) for word in decoding.bad_words for ids in tokenizer.spellings(word)]
    if decoding.forced_bos is not None:
        settings["forced_bos_token_id"] = token_id(tokenizer, decoding.forced_bos, "forced_bos")
    if decoding.forced_eos:
        settings["forced_eos_token_id"] = tokenizer.eos
    return settings | {
        **({} if tokenizer.bos is None else {"bos_token_id": tokenizer.bos}),
        "pad_token_id": tokenizer.pad,
        "eos_token_id": tokenizer.eos,
        "decoder_start_token_id": token_id(tokenizer, start, "generator.start"),
        "max_length": (decoding.max_length or max_length) + 1,
    }


def continued(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for a decoder-only generator, which continues its input and counts new tokens only.

    What transformers would apply to the prompt as well is left out, with a warning.
    """
    if lost := [key for key in OF_ANSWERS if settings.get(key) is not None]:
        warn(f"{' and '.join(lost)}: transformers applies it to the prompt too; not in generation_config.json")
    replaced = ("decoder_start_token_id", "max_length", "min_length", *OF_ANSWERS)
    kept = {key: value for key, value in settings.items() if key not in replaced}
    lengths = {"max_new_tokens": settings["max_length"] - 1, "min_new_tokens": settings.get("min_length", 0) - 1}
    return kept | {key: length for key, length in lengths.items() if length > 0}


def _check_types(generation: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` for a setting of another type than in transformers."""
    hints = typing.get_type_hints(GenerationConfig)
    kinds = {theirs: hints[ours] for ours, theirs in OPTIONS} | dict.fromkeys(COUNTS, int)
    for name, kind in (kinds | {"bad_words_ids": tuple[tuple[TokenId, ...], ...]}).items():
        if generation.get(name) is not None:
            validate_value(kind, generation[name], name, where)


def _token(number: int, tokenizer: GeneratorTokenizer) -> str:
    """A token by its id; for an unknown id the id itself, which `token_id` rejects later."""
    found = tokenizer.tokenizer.id_to_token(number) if 0 <= number < 2**32 else None
    return found or str(number)


def _bad_word(ids: list[int], tokenizer: GeneratorTokenizer, where: str) -> str:
    """The text of a bad word. Raises `InputError` where it does not encode to the same tokens again."""
    word = tokenizer.tokenizer.decode(ids, skip_special_tokens=False).strip()
    if tuple(ids) not in tokenizer.spellings(word):
        raise InputError(f"{where}: bad_words_ids {ids} are not a word of the tokenizer; leave them out in a copy")
    return word
