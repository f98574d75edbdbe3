"""The tokenizers of checkpoints, as transformers' AutoTokenizer reads them.

Its settings (lowercasing, added tokens, clean-up of decoded texts …) are all part of the returned
`tokenizers.Tokenizer`, so that one tokenizer.json stores them. No network access, no code from the folder, no pickles.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from tokenizers import Regex, Tokenizer, decoders

from rag_jax.data.tokenizers import ignore_special_tokens_in_text, read_tokenizer
from rag_jax.data.validation import Range
from rag_jax.errors import InputError
from rag_jax.hub.config_json import ConfigJson, read_settings, write_json
from rag_jax.models.architecture import Architecture, SpecialTokens
from rag_jax.types import Generator

SENTENCEPIECE = ("spiece.model", "tokenizer.model")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE)
SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk> [UNK]",
    "sep_token": "</s> [SEP]",
    "pad_token": "<pad> [PAD]",
    "cls_token": "<s> [CLS]",
    "mask_token": "<mask> [MASK]",
}
"""Roles of special tokens, and their tokens in the vocabularies of BART and BERT."""
CLEANED = [(f" {mark}", mark) for mark in ".?!,"] + [(" ' ", "'")]
CLEANED += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]
"""The replacements by which transformers cleans up decoded texts, in its order."""


SETTINGS: dict[str, Any] = {
    "model_max_length": Annotated[float, Range(1)],  # 1e30 for none
    "padding_side": Literal["left", "right"],
    "truncation_side": Literal["left", "right"],
    "model_input_names": tuple[str, ...],
    "clean_up_tokenization_spaces": bool,
    "split_special_tokens": bool,
    "do_lower_case": bool,
    "added_tokens_decoder": dict[str, dict[str, Any]],
    **dict.fromkeys(SPECIAL, str | dict[str, Any]),
}
"""The types of what transformers reads in tokenizer_config.json."""


class Stored(NamedTuple):
    """A tokenizer, and its settings in tokenizer_config.json beyond encoding and decoding."""

    tokenizer: Tokenizer
    settings: Mapping[str, Any]  # roles of special tokens, lengths, sides, names of inputs


def read(folder: Path, model: Mapping[str, Any]) -> Stored | None:
    """Read a folder's tokenizer for the network with the config.json `model`; None if there is none.

    Raises `InputError` if it cannot be read, or requires more than the `tokenizers` library.
    """
    if not any((folder / file).exists() for file in VOCABULARIES):
        return None
    described = (folder / "tokenizer_config.json").exists() or "model_type" in model
    if (folder / "tokenizer.json").exists() and not described:
        return Stored(read_tokenizer(folder / "tokenizer.json"), {})
    _check_sentencepiece(folder)
    try:
        _check_kind(folder, model)
        loaded = _loaded(folder, model)
        tokenizer, settings = ignore_special_tokens_in_text(loaded.backend_tokenizer), _settings(loaded)
    except InputError:
        raise
    except Exception as error:  # the Rust side raises plain Exception
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{folder}: the tokenizer cannot be read ({reason}); copy or download it again") from None
    if _cleans_up(loaded):
        tokenizer.decoder = _cleaning(tokenizer.decoder)
    return Stored(tokenizer, settings)


def write(folder: Path, stored: Stored) -> None:
    """Write tokenizer.json, unchanged, and the tokenizer_config.json that AutoTokenizer requires."""
    tokenizer, settings = stored
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    roles = settings if any(map(_role, settings)) else {**_default_roles(vocabulary), **settings}
    known = {key: value for key, value in roles.items() if not _role(key) or value in vocabulary}
    if "extra_special_tokens" in known:
        known["extra_special_tokens"] = [token for token in known["extra_special_tokens"] if token in vocabulary]
    # The class that uses tokenizer.json unchanged; its decoder cleans up decoded texts, if at all.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **known}
    write_json(folder / "tokenizer_config.json", config)
    # Not by its own `save`, which raises plain Exception for a full disk.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def fit_to_vocabulary(tokenizer: Tokenizer, vocab_size: int, source: str) -> Tokenizer:
    """Remove the special tokens that exceed a generator's `vocab_size`, such as BART's `<mask>` with 50,264 tokens.

    Raises `InputError` if other tokens exceed it.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    surplus = {token for token, i in ids.items() if i >= vocab_size}
    if not surplus:
        return tokenizer
    stored = json.loads(tokenizer.to_str())
    stored["added_tokens"] = [token for token in stored["added_tokens"] if token["id"] < vocab_size]
    vocabulary = stored["model"]["vocab"]
    special = {token for token in surplus if token.startswith("<") and token.endswith(">")}
    if surplus != special or not isinstance(vocabulary, dict):
        what = f"a tokenizer of {len(ids)} tokens (ids up to {max(ids.values())}), a generator of {vocab_size}"
        raise InputError(f"{source}: {what}; use the tokenizer that was saved with the weights")
    stored["model"]["vocab"] = {token: i for token, i in vocabulary.items() if i < vocab_size}
    return ignore_special_tokens_in_text(Tokenizer.from_str(json.dumps(stored)))


def special_tokens(
    architecture: Architecture[Generator], settings: Mapping[str, Any], source: str | Path
) -> SpecialTokens:
    """The special tokens of a generator; of a decoder-only one, by their roles in its tokenizer's settings.

    Raises `InputError` where there is no end token. Padding, which is never read, may be the end token.
    """
    if not architecture.is_decoder_only:
        return architecture.special_tokens
    if "eos_token" not in settings:
        raise InputError(f"{source}: its tokenizer has no end token; save it with one, eos_token")
    eos = str(settings["eos_token"])
    return SpecialTokens(bos=None, pad=str(settings.get("pad_token") or eos), eos=eos, start=eos, others=())


def added_bos(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> str | None:
    """The token that the tokenizer adds before a text, if it is the one that begins texts; None without one."""
    bos = settings.get("bos_token")
    return bos if bos is not None and tokenizer.encode("a").tokens[0] == str(bos) else None


def _check_sentencepiece(folder: Path) -> None:
    """Raise `InputError` for a vocabulary of SentencePiece alone, which transformers converts by its library."""
    alone = [file for file in VOCABULARIES if (folder / file).exists()]
    if set(alone) <= set(SENTENCEPIECE) and importlib.util.find_spec("sentencepiece") is None:
        remedy = "install it, or save the tokenizer as tokenizer.json"
        raise InputError(f"{folder}: holds {alone[0]} alone, which the package sentencepiece converts; {remedy}")


def _check_kind(folder: Path, model: Mapping[str, Any]) -> None:
    """Raise `InputError` for a class that does not use the `tokenizers` library, before its code runs."""
    from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    config = folder / "tokenizer_config.json"
    settings = read_settings(config) if config.exists() else ConfigJson(str(config), {})
    for key, expected in SETTINGS.items():
        settings.read(key, expected, None)
    name = settings.read("tokenizer_class", str, "") or ConfigJson(str(folder), model).read("tokenizer_class", str, "")
    kind = tokenizer_class_from_name(name) if name else None
    if kind is None or kind is PreTrainedTokenizer:  # AutoTokenizer takes PreTrainedTokenizerFast instead
        return
    own = ("_decode", "_encode_plus", "clean_up_tokenization")
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerFast)) or any(
        getattr(kind, each) is not getattr(PreTrainedTokenizerFast, each) for each in own
    ):
        remedy = "save it with transformers as a PreTrainedTokenizerFast"
        raise InputError(f"{folder}: {name} is no plain tokenizer of the tokenizers library; {remedy}")


def _loaded(folder: Path, model: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = {key: model[key] for key in ("model_type", "tokenizer_class") if model.get(key)}
    config = AutoConfig.for_model(**values) if values.get("model_type") in CONFIG_MAPPING else PreTrainedConfig()
    loaded = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False, local_files_only=True)
    files = {name: file for name, file in loaded.vocab_files_names.items() if name != "tokenizer_file"}
    missing = [file for file in files.values() if not (folder / file).exists()]
    if missing and not (folder / "tokenizer.json").exists():  # transformers would create an empty vocabulary
        raise InputError(f"{folder}: the tokenizer cannot be read (no {missing[0]}); copy or download it again")
    return loaded


def _cleans_up(loaded: Any) -> bool:
    """Whether transformers cleans up decoded texts; those of byte-level BPE only if forced."""
    # Versions without this flag clean up all of them.
    forced = getattr(loaded, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", True)
    return loaded.clean_up_tokenization_spaces and (type(loaded.backend_tokenizer.model).__name__ != "BPE" or forced)


def _cleaning(decoder: decoders.Decoder | None) -> decoders.Decoder:
    """A decoder that cleans up; a tokenizer without a decoder joins its tokens by spaces."""
    spaced = [decoders.Replace(Regex("^"), " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    first = spaced if decoder is None else [decoder, decoders.Fuse()]
    return decoders.Sequence([*first, *(decoders.Replace(*each) for each in CLEANED)])


def _settings(loaded: Any) -> dict[str, Any]:
    extra = [str(token) for token in loaded.extra_special_tokens]
    return {
        **loaded.special_tokens_map,
        **({"extra_special_tokens": extra} if extra else {}),
        **({"model_max_length": loaded.model_max_length} if loaded.model_max_length < 2**31 else {}),
        **({"split_special_tokens": True} if loaded.split_special_tokens else {}),
        **({"chat_template": _chat_template(loaded)} if _chat_template(loaded) else {}),
        "padding_side": loaded.padding_side,
        "truncation_side": loaded.truncation_side,
        "model_input_names": loaded.model_input_names,
    }


def _chat_template(loaded: Any) -> str | None:
    """The template of a chat; of several, by name, the default."""
    found = loaded.chat_template
    found = found.get("default") if isinstance(found, Mapping) else found
    return found if isinstance(found, str) else None


def _default_roles(vocabulary: Mapping[str, int]) -> dict[str, str]:
    """The default roles of the special tokens in a vocabulary."""
    roles = {role: next((t for t in tokens.split() if t in vocabulary), "") for role, tokens in SPECIAL.items()}
    return {role: token for role, token in roles.items() if token}


def _role(key: str) -> bool:
    return key.endswith("_token")
