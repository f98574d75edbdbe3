"""How a tower's checkpoint says that it is fed: DPR's pair, or what sentence-transformers writes down.

| file | what is read of it |
|---|---|
| `config.json` | what `describe_convention` writes; its `model_type` says what is usual (DPR's pairs) |
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
from rag_jax.hub.config_json import Described, read_json
from rag_jax.hub.pooling import pools_prompts

PROMPTS, LENGTH = "config_sentence_transformers.json", "sentence_bert_config.json"
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")  # names of prompts, as `encode_query` looks for them
OURS = ("passage_template", "question_template", "max_seq_length")  # in config.json, by the fields of `Convention`


def read_convention(config: Described, folder: Path, passage: str = TITLE_AND_TEXT) -> TowerInputFormat:
    """A tower's own convention, by default with this template of passages.

    Raises `InputError` for descriptions that are damaged or of something else.
    """
    found = _sentence_transformers(folder, passage)
    given = [config.get(key) for key in OURS]
    return found._replace(max_length=given[2] or found.max_length).override(given[0], given[1])


def lowered(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer, putting texts into lower case first where `do_lower_case` of sentence-transformers says so."""
    if not _described(folder / LENGTH).get("do_lower_case"):
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    own = [copy.normalizer] if copy.normalizer is not None else []
    copy.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return ignore_special_tokens_in_text(copy)


def describe_convention(convention: TowerInputFormat, usual: TowerInputFormat) -> dict[str, Any]:
    """What config.json says of it, where it is not the one that is usual for such a tower."""
    return {key: value for key, value, other in zip(OURS, convention, usual, strict=True) if value != other}


def _sentence_transformers(folder: Path, passage: str) -> TowerInputFormat:
    """Prompts are put before what is read; a side without one of its own has the default one."""
    described = _described(folder / PROMPTS)
    named = described.get("prompts") or {}
    if not isinstance(named, Mapping):
        raise InputError(f"{folder / PROMPTS}: prompts are no table; copy or download the folder again")
    prompts = {name: each for name, each in named.items() if each is not None}
    default = described.get("default_prompt_name")
    if default is not None and default not in prompts:
        told = f"default_prompt_name is {default!r}, no prompt has that name"
        raise InputError(f"{folder / PROMPTS}: {told}; copy or download the folder again")
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
    """As sentence-transformers says, or else as its tokenizer does; None: neither."""
    found = _described(folder / LENGTH).get("max_seq_length")
    if found is None and (folder / "modules.json").exists():
        found = _described(folder / "tokenizer_config.json").get("model_max_length")
        found = None if found is None or found >= 10**6 else found  # it stands for no limit
    if found is not None and (not isinstance(found, int) or found < 1):
        raise InputError(f"{folder / LENGTH}: max_seq_length is {found!r}; give the tokens that the tower reads")
    return found


def _described(path: Path) -> Mapping[str, Any]:
    """A file that need not be there."""
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: is no table of settings; copy or download the folder again")
    return values
