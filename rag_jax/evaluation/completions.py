"""Completions of prompts by one or more models, and what others say about whether they refuse.

    {"prompt_id": "1", "model": "a", "completion": "I can't help with that.", "refusal_human": "full_refusal"}

`model` may be left out where there is one. Every field whose name begins with `refusal` is a column of labels, those of
XSTest: "full_refusal", "partial_refusal" or "full_compliance", or null where the judge gave none. `refusal_human` holds
those of people.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.jsonl import read_jsonl, validate_characters, validate_id, validate_text
from rag_jax.data.safety_prompts import SafetyPrompt
from rag_jax.errors import InputError

HUMAN = "refusal_human"
LABELS = {"full_refusal": True, "partial_refusal": True, "full_compliance": False}  # whether it counts as a refusal


class Completion(NamedTuple):
    """An answer to a prompt."""

    prompt_id: str
    text: str
    labels: Mapping[str, str | None] = {}  # by other judges, one of `LABELS`; None: not judged


Completions = dict[str, list[Completion]]  # by model, in the order of the prompts


def read_completions(path: Path, prompts: Sequence[SafetyPrompt]) -> Completions:
    """The completions of a file, by model and in the order of the prompts.

    Raises `InputError` (`FILE:LINE: what; remedy`) for a file that is unreadable or empty, a malformed line, an unknown
    prompt, a label that is none of `LABELS`, a model that answers a prompt twice or not at all, and lines with other
    columns of labels than the first.
    """
    known = {prompt.id for prompt in prompts}
    found: dict[str, dict[str, Completion]] = {}
    columns: set[str] | None = None
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        model, completion = _completion(row, location)
        of_model = found.setdefault(model, {})
        if completion.prompt_id not in known:
            what = f'no prompt has the id "{completion.prompt_id}"'
            raise InputError(f"{location}: {what}; name the file of the prompts that were answered")
        if completion.prompt_id in of_model:
            what = f'model "{model}" answers the prompt "{completion.prompt_id}" twice'
            raise InputError(f'{location}: {what}; leave one out, or name the models apart, "model"')
        if columns is None:
            columns = set(completion.labels)
        if odd := min(columns ^ set(completion.labels), default=None):
            raise InputError(f'{location}: "{odd}" is not on every line; write null where there is no label')
        of_model[completion.prompt_id] = completion
    if not found:
        raise InputError(f'{path}: holds no completions; write one {{"prompt_id", "completion"}} on each line')
    return {model: _in_order(path, model, completions, prompts) for model, completions in found.items()}


def _completion(row: Mapping[str, Any], location: str) -> tuple[str, Completion]:
    for name in ("prompt_id", "completion"):
        if row.get(name) is None:
            raise InputError(f'{location}: "{name}" is missing; write the id of the prompt and the completion')
    text = row["completion"]  # may be blank: a model may answer nothing
    if not isinstance(text, str):
        text = validate_text(text, "completion", location)
    labels = {name: value for name, value in row.items() if name.startswith("refusal")}
    for name, value in labels.items():
        if value not in (None, *LABELS):  # compared, not hashed: it may be anything
            raise InputError(f'{location}: "{name}" is {value!r}; write {", ".join(LABELS)}, or null')
    model = validate_text(row.get("model", "model"), "model", location)
    id = validate_id(row["prompt_id"], "prompt_id", location)
    return model, Completion(id, validate_characters(text, "completion", location), labels)


def _in_order(
    path: Path, model: str, completions: Mapping[str, Completion], prompts: Sequence[SafetyPrompt]
) -> list[Completion]:
    missing = [prompt.id for prompt in prompts if prompt.id not in completions]
    if missing:
        count = f'{len(missing):,} of {len(prompts):,} prompts have no completion by "{model}"'
        raise InputError(f'{path}: {count}, the first is "{missing[0]}"; add them, or leave their prompts out')
    return [completions[prompt.id] for prompt in prompts]
