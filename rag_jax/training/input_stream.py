"""What each step of training is given: its batch, and the index to search, or what a host engine found for it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from rag_jax.data.batches import Examples, collate
from rag_jax.index.engines.registry import ENGINES
from rag_jax.parallel import devices
from rag_jax.pipeline import programs
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.host_retrieval import HostSearch, RetrievalInputs, prefetch, subset_positions
from rag_jax.training.step_timer import StepTimer
from rag_jax.types import Batch, Knowledge, RagParams, SearchResults, host


class StepInputs(NamedTuple):
    """The arguments of `training.train_step`, after its state."""

    knowledge: Knowledge
    batch: Batch
    positives: Int[Array, "B G"]
    search_results: SearchResults | None


class HostBatch(NamedTuple):
    """One batch of the stream, and the stream's place behind it."""

    examples: Int[np.ndarray, " B"]  # their numbers
    batch: Batch
    stream_state: dict[str, Any]


def step_inputs(
    components: Components,
    examples: Examples,
    stream_state: dict[str, Any] | None,
    params: Callable[[], RagParams],
    step_timer: StepTimer,
) -> Iterator[tuple[StepInputs, HostBatch]]:
    """Without end, from a `stream_state` of the stream on (None: its beginning).

    Of several processes each reads its own share of a batch. `params` are those of the moment: a host engine encodes
    questions with them. The `step_timer` is told how long that engine is waited for.
    """
    c = components.config
    host_batch = _drawn(components, examples, stream_state)
    outside = components.host_search if c.retriever.mode != "gold" else None
    if outside is None:
        is_fixed = ENGINES[c.retriever.engine].reads_question_file
        for each in host_batch:
            fixed = SearchResults(_share(components, examples.fixed, each), None) if is_fixed else None
            yield (
                StepInputs(components.knowledge, each.batch, _share(components, examples.positives, each), fixed),
                each,
            )
        return
    look = partial(_look, components, outside, examples, params)
    for each, found in prefetch(host_batch, look, c.retriever.staleness):
        with step_timer("retrieval"):
            looked = found()
        assert looked.rows is not None
        gold = host(subset_positions(examples.positives[each.examples], looked.rows))
        sent = components.placement.replicate((looked.knowledge, gold, looked.search_results))
        yield StepInputs(sent[0], each.batch, *sent[1:]), each


def _drawn(components: Components, examples: Examples, stream_state: dict[str, Any] | None) -> Iterator[HostBatch]:
    from rag_jax.data.stream import example_stream  # made of grain, which nothing else needs

    c = components.config
    numbers = example_stream(examples, c.batch_size, c.seed, c.data.answers == "sampled")
    if stream_state is not None:
        numbers.set_state(stream_state)
    for each in numbers:
        read = partial(_collated, components, examples, each)
        yield HostBatch(each, devices.shard_batch(components.mesh, c.batch_size, read), numbers.get_state())


def _collated(components: Components, examples: Examples, chosen: Int[np.ndarray, " B"], own: slice) -> Batch:
    return collate(examples, chosen[own], components.generator_tokenizer)


def _share(components: Components, rows: Int[np.ndarray, "examples G"], host_batch: HostBatch) -> Any:
    return devices.shard_batch(
        components.mesh, len(host_batch.examples), lambda own: host(rows[host_batch.examples[own]])
    )


def _look(
    components: Components,
    outside: HostSearch,
    examples: Examples,
    params: Callable[[], RagParams],
    host_batch: HostBatch,
) -> Callable[[], RetrievalInputs]:
    """Encode on the device now; what is returned waits for that, and searches."""
    vectors = programs.encoding(components.networks, components.placement)(params(), host_batch.batch.question)
    texts = [examples.texts[i] for i in host_batch.examples]
    return lambda: outside(texts, np.asarray(vectors), components.num_docs)
