"""RAG-Token with generators of full size over eight devices, compiled from shapes: each device holds its eighth.

Mesh: data 1, fsdp 4, tensor 2. What devices exchange is one layer's parameters at a time, and states of one part of the
rows; in decoding, while answers are written, states of one token of each answer.
"""

import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import full_size_programs as programs
import xla_flags

pytestmark = pytest.mark.slow
PARAMETERS = {  # as published; of T5 as transformers builds it, see `tests/models/test_t5.py`
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "google/t5-v1_1-large": 783_150_080,
}
LAYERS = {"mistralai/Mistral-7B-v0.1": 32, "meta-llama/Llama-3.1-8B": 32, "google/t5-v1_1-large": 24}
DEVICES, FSDP, TENSOR = programs.MESH.size, programs.MESH.fsdp, programs.MESH.tensor
CASES = [*(("train", name) for name in PARAMETERS), ("answer", "mistralai/Mistral-7B-v0.1")]
# The CPU's usual order of operations gathers the parameters of all unrolled layers before the first one runs, for the
# sake of concurrency. This one is bound by memory, as an accelerator's is.
BY_MEMORY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
each_case = pytest.mark.parametrize(("what", "name"), CASES)


@cache
def told(what: str, name: str) -> dict[str, Any]:
    """In a process of its own: the devices are counted when JAX starts."""
    environment = {**os.environ, "XLA_FLAGS": BY_MEMORY if xla_flags.known(BY_MEMORY) else ""}
    environment["PYTHONPATH"] = os.fspath(Path(__file__).parents[1])
    command = [sys.executable, programs.__file__, what, name]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    print({key: value for key, value in found.items() if key != "exchanges"})
    return found


@each_case
def test_the_network_is_as_large_as_published(what, name):
    assert told(what, name)["parameters"] == PARAMETERS[name]


@each_case
def test_each_device_holds_an_eighth_of_parameters_and_moments(what, name):
    found = told(what, name)
    copies = 3 if what == "train" else 1  # the parameters and AdamW's two moments
    assert found["bytes"] > 4 * copies * PARAMETERS[name]
    assert found["bytes"] / DEVICES <= found["held"] < 1.01 * found["bytes"] / DEVICES
    assert found["whole"] < 2e6, "norms, biases and the question tower's positions alone are not split"
    assert found["held"] <= found["arguments"] < 1.01 * found["held"], "the program is given no more"


@each_case
def test_temporary_memory_is_of_the_order_of_what_is_held(what, name):
    """Gradients, activations and parameters in the compute dtype; copies of unsplit parameters would be eight times."""
    found = told(what, name)
    assert found["temporary"] < 2 * found["held"]


@each_case
def test_parameters_are_gathered_one_by_one(what, name):
    found = told(what, name)
    gathered = [shape for kind, shape, _ in found["exchanges"] if kind == "all-gather"]
    assert max(map(math.prod, gathered)) <= found["largest"] / TENSOR, "no more than one parameter, of one tensor part"
    stacked = [shape for _, shape, _ in found["exchanges"] if shape[:1] == [LAYERS[name]] and len(shape) > 2]
    assert not stacked, "not those of all layers"


@each_case
def test_states_of_all_rows_are_exchanged_as_parts_only(what, name):
    """What an embedding finds for all rows goes to the rows' devices, each device's own columns of it."""
    found = told(what, name)
    rows = programs.B * programs.K
    whole = [shape for _, shape, _ in found["exchanges"] if len(shape) == 3 and shape[:2] == [rows, programs.LENGTH]]
    assert all(width * FSDP <= found["width"] for _, _, width in whole), whole


def test_writing_answers_exchanges_states_and_no_parameters():
    """A step of the search has W tokens of each row."""
    found = told("answer", "mistralai/Mistral-7B-v0.1")
    in_loops = [math.prod(shape) for _, shape, is_looped in found["exchanges"] if is_looped]
    largest_state = programs.B * programs.K * programs.BEAMS * found["vocabulary"] / TENSOR
    assert 0 < max(in_loops) <= largest_state
    assert largest_state < found["largest"] / DEVICES
