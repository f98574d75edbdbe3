"""The searches that a config may name: where each runs, what it needs, and what its scores are."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Engine
from rag_jax.index.engines.hybrid import Hybrid
from rag_jax.index.engines.store_engines import open_bm25, open_faiss
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store

EngineName = Literal["device", "faiss", "bm25", "hybrid"]
TrainingEngineName = Literal["device", "faiss", "bm25", "hybrid", "fixed"]


class EngineSpec(NamedTuple):
    """A search. Opening raises `InputError` where the store was not built with what it needs."""

    open: Callable[[Store, Placement], Engine]
    on_host: bool = True  # or else the index is on the device, and the programs search it
    needs_vectors: bool = True  # the questions'; or else it reads their texts
    scores_are_prior: bool = (
        False  # whether its scores are the logits of p(z|x); or else these are recomputed from vectors
    )
    reads_question_file: bool = False  # whether training reads the passages that the question file names
    depends_on: tuple[str, ...] = ()  # facts of its index in the store that decide what an inexact search finds

    @property
    def in_step(self) -> bool:
        """Whether a training step searches for itself."""
        return not self.on_host and not self.reads_question_file


ENGINES: dict[str, EngineSpec] = {
    "device": EngineSpec(DeviceIndex.of, on_host=False),
    "faiss": EngineSpec(lambda store, placement: open_faiss(store), depends_on=("factory", "rows")),
    "bm25": EngineSpec(lambda store, placement: open_bm25(store), needs_vectors=False, scores_are_prior=True),
    "hybrid": EngineSpec(lambda store, placement: Hybrid([DeviceIndex.of(store, placement), open_bm25(store)])),
    "fixed": EngineSpec(DeviceIndex.of, on_host=False, reads_question_file=True),
}
