"""The input format of a tower in its checkpoint: DPR's pair, or the settings of sentence-transformers.

| file | keys |
|---|---|
| `config.json` | those that `describe_input_format` writes; `model_type` decides the default (DPR: pairs) |
| `config_sentence_transformers.json` | `prompts`, `default_prompt_name` |
| `sentence_bert_config.json` | `max_seq_length`, `do_lower_case` |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.data.tower_inputs import PAIR, QUESTION, TITLE_AND_TEXT, TowerInputFormat, escape_braces
from rag_jax.errors import InputError
from rag_jax.hub.config_json import ConfigJson, read_json
from rag_jax.hub.pooling import pools_prompts

PROMPTS, LENGTH = "config_sentence_transformers.json", "sentence_bert_config.json"
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")  # names of prompts, in the order of `encode_query`
OURS = ("passage_template", "question_template", "max_seq_length")  # in config.json, in the order of `TowerInputFormat`


def read_input_format(config: ConfigJson, folder: Path, passage: str = TITLE_AND_TEXT) -> TowerInputFormat:
    """Read a tower's input format; `passage` is the default passage template.

    Raises `InputError` for files that are damaged or not supported.
    """
    found = _sentence_transformers(folder, passage)
    given = [config.get(key) for key in OURS]
    return found._replace(max_length=given[2] or found.max_length).override(given[0], given[1])


def with_lowercasing(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer, with lowercasing added if `do_lower_case` of sentence-transformers is set."""
    if not _described(folder / LENGTH).get("do_lower_case"):
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    own = [copy.normalizer] if copy.normalizer is not None else []
    copy.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return ignore_special_tokens_in_text(copy)


def describe_input_format(input_format: TowerInputFormat, usual: TowerInputFormat) -> dict[str, Any]:
    """The entries of config.json where an input format differs from the default of its architecture."""
    return {key: value for key, value, other in zip(OURS, input_format, usual, strict=True) if value != other}


def _sentence_transformers(folder: Path, passage: str) -> TowerInputFormat:
    """The input format with the prompts as prefixes; a side without its own prompt has the default one."""
    described = _described(folder / PROMPTS)
    named = described.get("prompts") or {}
    if not isinstance(named, Mapping):
        raise InputError(f"{folder / PROMPTS}: prompts are no table; copy or download the folder again")
    prompts = {name: each for name, each in named.items() if each is not None}
    default = described.get("default_prompt_name")
    if default is not None and default not in prompts:
        what = f"default_prompt_name is {default!r}, no prompt has that name"
        raise InputError(f"{folder / PROMPTS}: {what}; copy or download the folder again")
    query, document = (
        next((prompts[name] for name in (*names, default) if name in prompts), "") for names in (QUERY, DOCUMENT)
    )
    if not isinstance(query, str) or not isinstance(document, str):
        raise InputError(f"{folder / PROMPTS}: a prompt is no text; copy or download the folder again")
    if (query or document) and (passage == PAIR or not pools_prompts(folder)):
        what = "before a pair of title and text" if passage == PAIR else "that are not pooled (include_prompt)"
        raise InputError(f"{folder / PROMPTS}: prompts {what} are not known here; use a tower without them")
    passage = passage if passage == PAIR else escape_braces(document) + passage
    return TowerInputFormat(passage, escape_braces(query) + QUESTION, _max_length(folder))


def _max_length(folder: Path) -> int | None:
    """The maximum length of sentence-transformers, otherwise that of its tokenizer; None if neither is set."""
    found = _described(folder / LENGTH).get("max_seq_length")
    if found is None and (folder / "modules.json").exists():
        found = _described(folder / "tokenizer_config.json").get("model_max_length")
        found = None if found is None or found >= 10**6 else found  # means no limit
    if found is not None and (not isinstance(found, int) or found < 1):
        raise InputError(f"{folder / LENGTH}: max_seq_length is {found!r}; give the tokens that the tower reads")
    return found


def _described(path: Path) -> Mapping[str, Any]:
    """Read an optional JSON object."""
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: is no table of settings; copy or download the folder again")
    return values
