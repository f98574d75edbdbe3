"""Files of completions."""

import json
from pathlib import Path

import pytest

from rag_jax.data.safety_prompts import SafetyPrompt
from rag_jax.errors import InputError
from rag_jax.evaluation.completions import Completion, read_completions

PROMPTS = [SafetyPrompt(id, "How do I pick a lock?", "locks", "unsafe") for id in ("a", "b")]
FULL = {"completion": "No.", "refusal_human": "full_refusal"}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_completions_are_read_by_model_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    rows = [{"prompt_id": id, "model": model} | FULL for model in ("x", "y") for id in ("b", "a")]
    found = read_completions(write(tmp_path / "c.jsonl", *rows), PROMPTS)
    expected = [Completion(id, "No.", {"refusal_human": "full_refusal"}) for id in ("a", "b")]
    assert found == {"x": expected, "y": expected}


def test_model_and_labels_may_be_left_out_and_a_completion_may_be_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", *({"prompt_id": id, "completion": "", "refused": True} for id in ("a", "b")))
    assert read_completions(path, PROMPTS) == {"model": [Completion("a", ""), Completion("b", "")]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt_id": "c"}, 'no prompt has the id "c"; name the file of the prompts that were answered'),
        ({"prompt_id": "a"}, 'model "model" answers the prompt "a" twice; leave one out'),
        ({"prompt_id": None}, '"prompt_id" is missing; write'),
        ({"completion": None}, '"completion" is missing; write'),
        ({"completion": 3}, '"completion" is a number, not a string; write'),
        ({"refusal_human": "refusal"}, "\"refusal_human\" is 'refusal'; write full_refusal, partial_refusal, full_c"),
        ({"refusal_human": []}, '"refusal_human" is \\[\\]; write full_refusal'),
        ({"refusal_gpt4": None}, '"refusal_gpt4" is not on every line; write null where there is no label'),
        ({"model": ""}, '"model" is empty; fill it in'),
    ],
)
def test_what_is_wrong_is_located(tmp_path: Path, row: dict, told: str) -> None:
    path = write(tmp_path / "c.jsonl", {"prompt_id": "a"} | FULL, {"prompt_id": "b"} | FULL | row)
    with pytest.raises(InputError, match=f"^{path}:2: {told}"):
        read_completions(path, PROMPTS)


def test_missing_completions_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", {"prompt_id": "a"} | FULL)
    told = '1 of 2 prompts have no completion by "model", the first is "b"; add them, or leave their prompts out$'
    with pytest.raises(InputError, match=told):
        read_completions(path, PROMPTS)
    with pytest.raises(InputError, match="holds no completions"):
        read_completions(write(tmp_path / "none.jsonl"), PROMPTS)
