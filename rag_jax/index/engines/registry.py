"""The searches that a config may name: where each runs, what it needs, and what its scores are."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Engine
from rag_jax.index.engines.hybrid import Hybrid
from rag_jax.index.engines.stored import open_bm25, open_faiss
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store

Name = Literal["device", "faiss", "bm25", "hybrid"]
Training = Literal["device", "faiss", "bm25", "hybrid", "fixed"]


class Kind(NamedTuple):
    """A search. Opening raises `InputError` where the store was not built with what it needs."""

    open: Callable[[Store, Placement], Engine]
    on_host: bool = True  # or else the index is on the device, and the programs search it
    compares_vectors: bool = True  # the questions'; or else it reads their texts
    is_prior: bool = False  # whether its scores are the logits of p(z|x); or else these are recomputed from vectors
    from_questions: bool = False  # whether training reads the passages that the question file names
    depends_on: tuple[str, ...] = ()  # facts of its index in the store that decide what an inexact search finds

    @property
    def in_step(self) -> bool:
        """Whether a training step searches for itself."""
        return not self.on_host and not self.from_questions


ENGINES: dict[str, Kind] = {
    "device": Kind(DeviceIndex.of, on_host=False),
    "faiss": Kind(lambda store, placement: open_faiss(store), depends_on=("factory", "rows")),
    "bm25": Kind(lambda store, placement: open_bm25(store), compares_vectors=False, is_prior=True),
    "hybrid": Kind(lambda store, placement: Hybrid([DeviceIndex.of(store, placement), open_bm25(store)])),
    "fixed": Kind(DeviceIndex.of, on_host=False, from_questions=True),
}
