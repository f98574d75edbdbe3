"""Which passages a step is given: those of the question file where the engine is `fixed`, unless there are none."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rag_jax.config.config import Config, Data, Retriever
from rag_jax.training import input_stream
from rag_jax.training.input_stream import HostBatch, step_inputs
from rag_jax.training.step_timer import StepTimer

FIXED = np.array([[4, 0], [3, 2], [1, -1]], np.int32)
POSITIVES = np.array([[4], [2], [-1]], np.int32)


def first(monkeypatch: pytest.MonkeyPatch, passages: Path | None, engine: str) -> input_stream.StepInputs:
    """The inputs of a step with questions 2 and 0."""

    def host_batches(*_: object) -> Iterator[HostBatch]:
        yield HostBatch(np.array([2, 0]), None, {})

    monkeypatch.setattr(input_stream, "_host_batches", host_batches)
    config = Config(Data(passages), Retriever("tower", engine=engine))
    components = SimpleNamespace(config=config, host_search=None, knowledge="all", mesh=None)
    examples = SimpleNamespace(fixed=FIXED, positives=POSITIVES)
    inputs, _ = next(step_inputs(components, examples, None, lambda: None, StepTimer()))
    assert inputs.knowledge == "all"
    np.testing.assert_array_equal(inputs.positives, POSITIVES[[2, 0]])
    return inputs


def test_passages_of_the_question_file_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = first(monkeypatch, Path("passages.jsonl"), "fixed").search_results
    assert found is not None
    np.testing.assert_array_equal(found.rows, FIXED[[2, 0]])
    assert found.scores is None


@pytest.mark.parametrize(("passages", "engine"), [(None, "fixed"), (None, "device"), (Path("p.jsonl"), "device")])
def test_otherwise_a_step_searches_for_itself(monkeypatch: pytest.MonkeyPatch, passages, engine: str) -> None:
    """A closed book has one row, the empty passage, which no file names."""
    assert first(monkeypatch, passages, engine).search_results is None
