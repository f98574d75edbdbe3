"""The input format of a tower in its checkpoint: DPR's pair, or the settings of sentence-transformers.

| file | keys |
|---|---|
| `config.json` | first: those of `describe_input_format`; `model_type` decides the default (DPR: pairs) |
| `config_sentence_transformers.json` | `prompts`, `default_prompt_name` |
| `sentence_bert_config.json` | `max_seq_length`, `do_lower_case` |
"""

from pathlib import Path
from typing import Annotated, Any, Optional

from tokenizers import Tokenizer, normalizers

from rag_jax.data.templates import fields_of, plain_text
from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.data.tower_inputs import PAIR, QUESTION, TITLE_AND_TEXT, TowerInputFormat
from rag_jax.data.validation import Range
from rag_jax.errors import InputError
from rag_jax.hub.config_json import ConfigJson, Positions, read_settings
from rag_jax.hub.pooling import SETTINGS, pools_prompts

PROMPTS, LENGTH = SETTINGS, "sentence_bert_config.json"
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")  # names of prompts, in the order of `encode_query`
# In config.json, in the order of `TowerInputFormat`.
MAX_LENGTH = "max_seq_length"
OURS = {"passage_template": str, "question_template": str, MAX_LENGTH: Optional[Positions]}  # noqa: UP045 (an alias of Annotated)
Limit = Annotated[float, Range(1)]  # transformers writes 1e30 for none


def read_input_format(config: ConfigJson, folder: Path, passage: str = TITLE_AND_TEXT) -> TowerInputFormat:
    """Read a tower's input format; `passage` is the default passage template.

    Raises `InputError` for files that are damaged or not supported.
    """
    found = _sentence_transformers(folder, passage)
    passage, question, max_length = (
        config.read(key, kind, other) for (key, kind), other in zip(OURS.items(), found, strict=True)
    )
    try:
        return found._replace(max_length=max_length).override(passage, question)
    except InputError as error:
        raise InputError(f"{config.source}: {error}") from None


def with_lowercasing(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer, with lowercasing added if `do_lower_case` of sentence-transformers is set."""
    if not _described(folder / LENGTH).read("do_lower_case", bool, False):
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
        LENGTH: {MAX_LENGTH: max_length or positions, "do_lower_case": False},  # the tokenizer lowercases
    }


def _beginning(template: str) -> str:
    """The text before a template's first field."""
    return template.partition(f"{{{fields_of(template)[0]}}}")[0]


def _sentence_transformers(folder: Path, passage: str) -> TowerInputFormat:
    """The input format with the prompts as prefixes; a side without its own prompt has the default one."""
    described = _described(folder / PROMPTS)
    named = described.read("prompts", dict[str, str | None], {})
    prompts = {name: each for name, each in named.items() if each is not None}
    default = described.read("default_prompt_name", str, None)
    if default is not None and default not in prompts:
        what = f"default_prompt_name is {default!r}, no prompt has that name"
        raise InputError(f"{folder / PROMPTS}: {what}; copy or download the folder again")
    query, document = (
        next((prompts[name] for name in (*names, default) if name in prompts), "") for names in (QUERY, DOCUMENT)
    )
    for prompt in (query, document):
        plain_text(prompt, f"{folder / PROMPTS}: a prompt")
    if (query or document) and (passage == PAIR or not pools_prompts(folder)):
        what = "before a pair of title and text" if passage == PAIR else "that are not pooled (include_prompt)"
        raise InputError(f"{folder / PROMPTS}: prompts {what} are not known here; use a tower without them")
    passage = passage if passage == PAIR else document + passage
    return TowerInputFormat(passage, query + QUESTION, _max_length(folder))


def _max_length(folder: Path) -> int | None:
    """The maximum length of sentence-transformers, otherwise that of its tokenizer; None if neither is set."""
    found = _described(folder / LENGTH).read(MAX_LENGTH, Positions, None)
    if found is None and (folder / "modules.json").exists():
        found = _described(folder / "tokenizer_config.json").read("model_max_length", Limit, None)
        found = None if found is None or found >= 10**6 else int(found)  # means no limit
    return found


def _described(path: Path) -> ConfigJson:
    """Read an optional JSON object."""
    return read_settings(path) if path.exists() else ConfigJson(str(path), {})
