"""The engines that a config may name: where each runs, what it needs, and what its scores mean."""

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
    """An engine and its properties. `open` raises `InputError` if the store lacks what the engine needs."""

    open: Callable[[Store, Placement], Engine]
    on_host: bool = True  # otherwise compiled programs search the index on the device
    needs_vectors: bool = True  # of the questions; otherwise it uses their texts
    scores_are_prior: bool = False  # as logits of p(z|x), which are otherwise recomputed from the vectors
    reads_question_file: bool = False  # whether training reads the passages that the question file names
    has_precision: bool = True  # whether it searches vectors at the placement's precision
    depends_on: tuple[str, ...] = ()  # fields of its manifest entry that determine approximate results

    @property
    def in_step(self) -> bool:
        """Whether the compiled training step performs the search."""
        return not self.on_host and not self.reads_question_file

    @property
    def searches_apart(self) -> bool:
        """Whether it searches vectors on the devices, but outside the compiled step."""
        return self.on_host and self.has_precision


ENGINES: dict[str, EngineSpec] = {
    "device": EngineSpec(DeviceIndex.of, on_host=False),
    "faiss": EngineSpec(
        lambda store, placement: open_faiss(store), has_precision=False, depends_on=("factory", "rows")
    ),
    "bm25": EngineSpec(
        lambda store, placement: open_bm25(store), needs_vectors=False, scores_are_prior=True, has_precision=False
    ),
    "hybrid": EngineSpec(lambda store, placement: Hybrid([DeviceIndex.of(store, placement), open_bm25(store)])),
    "fixed": EngineSpec(DeviceIndex.of, on_host=False, reads_question_file=True),
}
