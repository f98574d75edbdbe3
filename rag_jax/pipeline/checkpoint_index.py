"""The index of a run that trains its passage tower and has not ended: the vectors in its newest checkpoint.

The passages are those of the index that the run started from. Nothing is written.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.errors import InputError, warn
from rag_jax.index.placement import Precision
from rag_jax.index.store import Store
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoints import refreshed_at, saved_host_state
from rag_jax.types import Int8Vectors, Vectors


def as_searched(store: Store, workdir: Path, step: int, precision: Precision) -> Store:
    """A store, in memory, with the vectors that the run searches after a step; a warning says how old they are.

    Args:
        store: the index that the run started from.
        precision: of the run's vectors.

    Raises `InputError` for an index of other passages, and for a checkpoint whose vectors are damaged.
    """
    host_state = saved_host_state(workdir) or {}
    if host_state.get("made_of", {}).get(digests.PASSAGES) != digests.digest(digests.passage_bytes(store)):
        raise InputError(f"{store.folder}: other passages than when {workdir} was trained; give the index of then")
    index = refreshed_at(workdir, step, precision)
    oldest = step - np.asarray(index.encoded_at)[: store.size].min(where=store.alive, initial=step)
    warn(f"{workdir}: has not ended; it searches the vectors of step {step}, the oldest of {oldest} steps before")
    return store.with_vectors(_numbers(index.vectors)[: store.size])


def _numbers(stored: Vectors) -> Float[np.ndarray, "N D"]:
    """Vectors as stored, in float32 on the host."""
    if isinstance(stored, Int8Vectors):
        return np.asarray(stored.values).astype(np.float32) * np.asarray(stored.scales)[:, None]
    return np.asarray(stored).astype(np.float32)
