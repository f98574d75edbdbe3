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
from rag_jax.pipeline.components import Parts
from rag_jax.pipeline.host_retrieval import HostSearch, Looked, ahead, among
from rag_jax.training.step_timer import Clock
from rag_jax.types import Batch, Found, Knowledge, RagParams, host


class Given(NamedTuple):
    """The arguments of `training.train_step`, after its state."""

    knowledge: Knowledge
    batch: Batch
    positives: Int[Array, "B G"]
    found: Found | None


class Drawn(NamedTuple):
    """One batch of the stream, and the stream's place behind it."""

    examples: Int[np.ndarray, " B"]  # their numbers
    batch: Batch
    place: dict[str, Any]


def feed(
    parts: Parts, examples: Examples, place: dict[str, Any] | None, params: Callable[[], RagParams], clock: Clock
) -> Iterator[tuple[Given, Drawn]]:
    """Without end, from a `place` of the stream on (None: its beginning).

    Of several processes each reads its own share of a batch. `params` are those of the moment: a host engine encodes
    questions with them. The `clock` is told how long that engine is waited for.
    """
    c = parts.config
    drawn = _drawn(parts, examples, place)
    outside = parts.host_search if c.retriever.mode != "gold" else None
    if outside is None:
        is_fixed = ENGINES[c.retriever.engine].from_questions
        for each in drawn:
            fixed = Found(_share(parts, examples.fixed, each), None) if is_fixed else None
            yield Given(parts.knowledge, each.batch, _share(parts, examples.positives, each), fixed), each
        return
    look = partial(_look, parts, outside, examples, params)
    for each, found in ahead(drawn, look, c.retriever.staleness):
        with clock("retrieval"):
            looked = found()
        assert looked.rows is not None
        gold = host(among(examples.positives[each.examples], looked.rows))
        sent = parts.placement.everywhere((looked.knowledge, gold, looked.found))
        yield Given(sent[0], each.batch, *sent[1:]), each


def _drawn(parts: Parts, examples: Examples, place: dict[str, Any] | None) -> Iterator[Drawn]:
    from rag_jax.data.stream import stream  # made of grain, which nothing else needs

    c = parts.config
    numbers = stream(examples, c.batch_size, c.seed, c.data.answers == "sampled")
    if place is not None:
        numbers.set_state(place)
    for each in numbers:
        read = partial(_collated, parts, examples, each)
        yield Drawn(each, devices.share(parts.mesh, c.batch_size, read), numbers.get_state())


def _collated(parts: Parts, examples: Examples, chosen: Int[np.ndarray, " B"], own: slice) -> Batch:
    return collate(examples, chosen[own], parts.vocabulary)


def _share(parts: Parts, rows: Int[np.ndarray, "examples G"], drawn: Drawn) -> Any:
    return devices.share(parts.mesh, len(drawn.examples), lambda own: host(rows[drawn.examples[own]]))


def _look(
    parts: Parts, outside: HostSearch, examples: Examples, params: Callable[[], RagParams], drawn: Drawn
) -> Callable[[], Looked]:
    """Encode on the device now; what is returned waits for that, and searches."""
    vectors = programs.encoding(parts.networks, parts.placement)(params(), drawn.batch.question)
    texts = [examples.texts[i] for i in drawn.examples]
    return lambda: outside(texts, np.asarray(vectors), parts.num_docs)
