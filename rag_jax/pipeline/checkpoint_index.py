"""The index of a run that trains its passage tower and has not written it yet: the vectors in its newest checkpoint.

The passages are those of the index that the run started from. Nothing is written.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.config.config import Config
from rag_jax.errors import InputError, warn
from rag_jax.index.store import Store
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoints import refreshed_at, saved_host_state
from rag_jax.types import Int8Vectors, Vectors


def as_searched(store: Store, config: Config, workdir: Path, step: int) -> Store:
    """A store, in memory, with the vectors that the run searches after a step; a warning says how old they are.

    Args:
        store: the index that the run started from.

    Raises `InputError` for an index of other passages, and for a checkpoint whose vectors are damaged.
    """
    host_state = saved_host_state(workdir) or {}
    if host_state.get("made_of", {}).get(digests.PASSAGES) != digests.digest(digests.passage_bytes(store)):
        remedy = "put that index back, or resume the run with its --data.index"
        raise InputError(f"{store.folder}: other passages than when {workdir} was trained; {remedy}")
    index = refreshed_at(workdir, step, config.retriever.precision)
    oldest = step - np.asarray(index.encoded_at)[: store.size].min(where=store.alive, initial=step)
    what = "goes on, or was interrupted" if step < config.steps else "is trained, but its index is not written"
    told = f"searched are the vectors of step {step}, the oldest encoded {oldest} steps earlier"
    warn(f"{workdir}: {what}; {told}; rerun its command to finish it")
    return store.with_vectors(_numbers(index.vectors, store.size))


def _numbers(stored: Vectors, count: int) -> Float[np.ndarray, "N D"]:
    """The first vectors as numbers, on the host; those of 8 bits in float32."""
    if isinstance(stored, Int8Vectors):
        return np.asarray(stored.values)[:count] * np.asarray(stored.scales)[:count, None]
    return np.asarray(stored)[:count]
