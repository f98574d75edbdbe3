"""The input format of a tower in its checkpoint: DPR's pair, or the settings of sentence-transformers.

| file | keys |
|---|---|
| `config.json` | first: those of `describe_input_format`; `model_type` decides the default (DPR: pairs) |
| `config_sentence_transformers.json` | `prompts`, `default_prompt_name` |
| `sentence_bert_config.json` | `max_seq_length`, `do_lower_case` |
"""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from tokenizers import Tokenizer, normalizers

from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.data.tower_inputs import PAIR, QUESTION, TITLE_AND_TEXT, TowerInputFormat, escape_braces
from rag_jax.errors import InputError
from rag_jax.hub.config_json import ConfigJson, read_json
from rag_jax.hub.pooling import SETTINGS, pools_prompts

PROMPTS, LENGTH = SETTINGS, "sentence_bert_config.json"
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")  # names of prompts, in the order of `encode_query`
OURS = ("passage_template", "question_template", "max_seq_length")  # in config.json, in the order of `TowerInputFormat`


def read_input_format(config: ConfigJson, folder: Path, passage: str = TITLE_AND_TEXT) -> TowerInputFormat:
    """Read a tower's input format; `passage` is the default passage template.

    Raises `InputError` for files that are damaged or not supported.
    """
    found = _sentence_transformers(folder, passage)
    passage, question, max_length = (config.get(key, other) for key, other in zip(OURS, found, strict=True))
    return found._replace(max_length=_checked(max_length, config.source)).override(passage, question)


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


def describe_prompts(input_format: TowerInputFormat, norm: float | None, positions: int) -> dict[str, Any]:
    """The JSON files, by path, of sentence-transformers: prompts, similarity, and the longest input.

    A prompt is what a template begins with. What else it holds, such as how title and text are joined, is not known to
    sentence-transformers: its caller writes it into the text.
    """
    passage, question, max_length = input_format
    prompts = {QUERY[0]: _beginning(question), DOCUMENT[0]: "" if passage == PAIR else _beginning(passage)}
    similarity = "dot" if norm is None else "cosine"
    return {
        PROMPTS: {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": similarity},
        LENGTH: {"max_seq_length": max_length or positions, "do_lower_case": False},  # the tokenizer lowercases
    }


def _beginning(template: str) -> str:
    """The text before a template's first field, with its braces as they are."""
    pieces = list(Formatter().parse(template))  # an escaped brace ends a piece, too
    fields = [field for _, field, *_ in pieces]
    first = next(n for n, field in enumerate(fields) if field is not None)
    return "".join(literal for literal, *_ in pieces[: first + 1])


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
    return _checked(found, str(folder / LENGTH))


def _checked(max_length: Any, source: str) -> int | None:
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise InputError(f"{source}: max_seq_length is {max_length!r}; give the tokens that the tower reads")
    return max_length


def _described(path: Path) -> Mapping[str, Any]:
    """Read an optional JSON object."""
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: is no table of settings; copy or download the folder again")
    return values
