"""What each step of training is given: its batch, and the index to search, or what a host engine found for it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rag_jax.data.batches import Examples, collate, order
from rag_jax.run import programs
from rag_jax.run.lookup import HostSearch, Looked, ahead, among
from rag_jax.run.parts import Parts
from rag_jax.types import Batch, Found, Knowledge, RagParams, host


class Given(NamedTuple):
    """The arguments of `training.train_step`, after its state."""

    knowledge: Knowledge
    batch: Batch
    positives: Int[np.ndarray, "B G"]
    found: Found | None


def feed(parts: Parts, examples: Examples, skip: int, params: Callable[[], RagParams]) -> Iterator[Given]:
    """Without end, from step `skip` on. `params` are those of the moment: a host engine encodes questions with them."""
    config = parts.config
    chosen = order(examples, config.batch_size, config.seed, skip)
    outside = parts.host_search if config.retriever.mode != "gold" else None
    if outside is None:
        knowledge = parts.placement.knowledge(parts.store)
        for each in chosen:
            yield Given(knowledge, collate(examples, each, parts.vocabulary), host(examples.positives[each]), None)
        return
    batches = ((each, collate(examples, each, parts.vocabulary)) for each in chosen)
    look = partial(_look, parts, outside, examples, params)
    for (each, batch), looked in ahead(batches, look, config.retriever.staleness):
        assert looked.rows is not None
        yield Given(looked.knowledge, batch, host(among(examples.positives[each], looked.rows)), looked.found)


def _look(
    parts: Parts,
    outside: HostSearch,
    examples: Examples,
    params: Callable[[], RagParams],
    item: tuple[Int[np.ndarray, "B"], Batch],
) -> Callable[[], Looked]:
    """Encode on the device now; what is returned waits for that, and searches."""
    each, batch = item
    vectors = programs.encoding(parts.networks)(params(), batch.question)
    texts = [examples.texts[i] for i in each]
    return lambda: outside(texts, np.asarray(vectors), parts.num_docs)
