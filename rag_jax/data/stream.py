"""The order in which examples are trained on: shuffled epochs without end, a batch from one bucket at a time.

The order is a pure function of the seed. The stream is one of grain's: `get_state` is its place as plain JSON, and a
stream that is put there by `set_state` goes on as if it had never stopped, without reading what was before.
"""

from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from rag_jax.data.batches import Examples
from rag_jax.errors import InputError

IN_LINE = grain.ReadOptions(num_threads=0)  # numbers are drawn faster than they could be handed from thread to thread


def stream(examples: Examples, batch_size: int, seed: int, sampled: bool = False) -> grain.DatasetIterator:
    """The numbers of each batch's examples, without end.

    An epoch has every example once or, `sampled`, one of each question's, drawn anew in each epoch. Raises `InputError`
    where there are none.
    """
    if len(examples) == 0:
        raise InputError("no examples to train on; give a question file that holds some")
    if sampled:
        answers: dict[str, list[int]] = {}
        for number, question in enumerate(examples.ids):
            answers.setdefault(question, []).append(number)
        each = list(answers.values())
        drawn = _epochs(len(each), seed).random_map(lambda question, rng: int(rng.choice(each[question])))
    else:
        drawn = _epochs(len(examples), seed)
    return iter(Bucketed(drawn.to_iter_dataset(IN_LINE), examples.buckets, batch_size))


def _epochs(count: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


class Bucketed(grain.IterDataset):
    """Examples in batches of one bucket each: due when it is full; what is left over waits for the next epoch."""

    def __init__(self, parent: grain.IterDataset, buckets: Int[np.ndarray, "examples 2"], batch_size: int):
        super().__init__(parent)
        self._buckets, self._batch_size = buckets, batch_size

    def __iter__(self) -> grain.DatasetIterator:
        return _Waiting(iter(self._parent), self._buckets, self._batch_size)


class _Waiting(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, buckets: Int[np.ndarray, "examples 2"], batch_size: int):
        super().__init__(parent)
        self._buckets, self._batch_size = buckets, batch_size
        self._queues: dict[str, list[int]] = {}

    def __next__(self) -> Int[np.ndarray, " B"]:
        while True:
            example = int(next(self._parent))
            queue = self._queues.setdefault(str(self._buckets[example].tolist()), [])
            queue.append(example)
            if len(queue) == self._batch_size:
                due = np.asarray(queue)
                queue.clear()
                return due

    def get_state(self) -> dict[str, Any]:
        return {"drawn": self._parent.get_state(), "waiting": {name: [*each] for name, each in self._queues.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state["drawn"])
        self._queues = {name: [*each] for name, each in state["waiting"].items()}
