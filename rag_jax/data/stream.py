"""The order of training examples: endless shuffled epochs, each batch from a single bucket.

The order is a pure function of the seed. The stream is a grain iterator: `get_state` returns its position as plain
JSON, and `set_state` resumes there without reading the examples before it.
"""

from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from rag_jax.data.batches import Examples
from rag_jax.errors import InputError

NO_THREADS = grain.ReadOptions(num_threads=0)  # drawing a number is cheaper than passing it between threads


def example_stream(examples: Examples, batch_size: int, seed: int, sampled: bool = False) -> grain.DatasetIterator:
    """Yield the example numbers of each batch, endlessly.

    An epoch has every example once or, if `sampled`, one example per question, sampled anew in each epoch. Raises
    `InputError` if there are no examples.
    """
    if len(examples) == 0:
        raise InputError("no examples to train on; give a question file that holds some")
    if sampled:
        by_question: dict[str, list[int]] = {}
        for number, question in enumerate(examples.questions.ids):
            by_question.setdefault(question, []).append(number)
        groups = list(by_question.values())
        numbers = _epochs(len(groups), seed).random_map(lambda group, rng: int(rng.choice(groups[group])))
    else:
        numbers = _epochs(len(examples), seed)
    return iter(BucketedDataset(numbers.to_iter_dataset(NO_THREADS), examples.questions.buckets, batch_size))


def _epochs(count: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


class BucketedDataset(grain.IterDataset):
    """Batches of examples from one bucket each, emitted when full; incomplete ones are filled in the next epoch."""

    def __init__(self, parent: grain.IterDataset, buckets: Int[np.ndarray, "examples 2"], batch_size: int):
        super().__init__(parent)
        self._buckets, self._batch_size = buckets, batch_size

    def __iter__(self) -> grain.DatasetIterator:
        return _BucketIterator(iter(self._parent), self._buckets, self._batch_size)


class _BucketIterator(grain.DatasetIterator):
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
                batch = np.asarray(queue)
                queue.clear()
                return batch

    def get_state(self) -> dict[str, Any]:
        return {"drawn": self._parent.get_state(), "waiting": {name: [*each] for name, each in self._queues.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state["drawn"])
        self._queues = {name: [*each] for name, each in state["waiting"].items()}
