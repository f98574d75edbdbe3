"""The inputs of each training step: a batch, and the index or the passages that a host engine retrieved."""

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
from rag_jax.pipeline.host_retrieval import HostSearch, RetrievalInputs, knowledge_subset, prefetch, subset_positions
from rag_jax.training.step_timer import StepTimer
from rag_jax.types import Batch, Knowledge, RagParams, SearchResults, host


class StepInputs(NamedTuple):
    """The arguments of `training.train_step`, after its state."""

    knowledge: Knowledge
    batch: Batch
    positives: Int[Array, "B G"]
    search_results: SearchResults | None


class HostBatch(NamedTuple):
    """One batch of the stream, and the state of the stream after it."""

    examples: Int[np.ndarray, " B"]  # indices into `Examples`
    batch: Batch
    stream_state: dict[str, Any]


def step_inputs(
    components: Components,
    examples: Examples,
    stream_state: dict[str, Any] | None,
    params: Callable[[], RagParams],
    step_timer: StepTimer,
) -> Iterator[tuple[StepInputs, HostBatch]]:
    """Yield step inputs endlessly, starting at `stream_state` (None: the beginning).

    Each process reads its own shard of a batch. `params` returns the current parameters, with which a host engine
    encodes questions. The wait for that engine counts as "retrieval" in `step_timer`.
    """
    c = components.config
    host_batch = _host_batches(components, examples, stream_state)
    if c.retriever.mode == "gold" and ENGINES[c.retriever.engine].on_host and not c.data.is_closed_book:
        yield from _gold_inputs(components, examples, host_batch)
        return
    host_search = components.host_search
    if host_search is None:
        is_fixed = ENGINES[c.retriever.engine].reads_question_file and not c.data.is_closed_book
        for each in host_batch:
            fixed = SearchResults(_shard_rows(components, examples.fixed, each), None) if is_fixed else None
            yield (
                StepInputs(components.knowledge, each.batch, _shard_rows(components, examples.positives, each), fixed),
                each,
            )
        return
    start_search = partial(_start_search, components, host_search, examples, params)
    for each, found in prefetch(host_batch, start_search, c.retriever.staleness):
        with step_timer("retrieval"):
            inputs = found()
        assert inputs.rows is not None
        gold = host(subset_positions(examples.positives[each.examples], inputs.rows))
        sent = components.placement.replicate((inputs.knowledge, gold, inputs.search_results))
        yield StepInputs(sent[0], each.batch, *sent[1:]), each


def _gold_inputs(
    components: Components, examples: Examples, host_batches: Iterator[HostBatch]
) -> Iterator[tuple[StepInputs, HostBatch]]:
    """With the gold passages alone on the devices, for which the index of a host engine may be too large."""
    for each in host_batches:
        rows = examples.positives[each.examples]
        found = knowledge_subset(components.store, rows, None, components.placement.shards)
        sent = components.placement.replicate((found.knowledge, host(subset_positions(rows, rows))))
        yield StepInputs(sent[0], each.batch, sent[1], None), each


def _host_batches(
    components: Components, examples: Examples, stream_state: dict[str, Any] | None
) -> Iterator[HostBatch]:
    from rag_jax.data.stream import example_stream  # imports grain, which nothing else needs

    c = components.config
    numbers = example_stream(examples, c.batch_size, c.seed, c.data.answers == "sampled")
    if stream_state is not None:
        numbers.set_state(stream_state)
    for each in numbers:
        read = partial(_collate, components, examples, each)
        yield HostBatch(each, devices.shard_batch(components.mesh, c.batch_size, read), numbers.get_state())


def _collate(components: Components, examples: Examples, chosen: Int[np.ndarray, " B"], own: slice) -> Batch:
    return collate(examples, chosen[own], components.generator_tokenizer)


def _shard_rows(components: Components, rows: Int[np.ndarray, "examples G"], host_batch: HostBatch) -> Any:
    return devices.shard_batch(
        components.mesh, len(host_batch.examples), lambda own: host(rows[host_batch.examples[own]])
    )


def _start_search(
    components: Components,
    host_search: HostSearch,
    examples: Examples,
    params: Callable[[], RagParams],
    host_batch: HostBatch,
) -> Callable[[], RetrievalInputs]:
    """Start encoding on the device; the returned function waits for the vectors and searches."""
    texts = [examples.questions.texts[i] for i in host_batch.examples]
    if not host_search.needs_vectors:
        return lambda: host_search(texts, None, components.num_docs)
    vectors = programs.encoding(components.networks, components.placement)(params(), host_batch.batch.question)
    return lambda: host_search(texts, np.asarray(vectors), components.num_docs)
