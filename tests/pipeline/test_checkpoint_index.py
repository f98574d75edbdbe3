"""The index of a run that has not ended, as its checkpoint holds it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.config.config import Config, Data, Retriever
from rag_jax.core.refresh import RefreshedIndex
from rag_jax.core.training import TrainState
from rag_jax.errors import InputError
from rag_jax.index.placement import CONVERT, Precision
from rag_jax.index.store import without_vectors
from rag_jax.pipeline import checkpoint_index, digests
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.types import RagParams
from stores import PASSAGES

STORE = without_vectors(PASSAGES).remove_rows([1])
VECTORS = np.random.default_rng(0).standard_normal((len(PASSAGES) + 3, 4)).astype(np.float32)  # three rows of padding
CONFIG = Config(Data(index=Path("index")), Retriever("tower", train_passages=True, refresh_every=4), steps=9)


def saved(workdir: Path, precision: Precision, step: int) -> Config:
    """A checkpoint in a workdir, whose oldest vector is of a removed row; and the run's config."""
    encoded_at = np.full(len(VECTORS), step - 2, np.int32)
    encoded_at[1] = step - 4
    index = RefreshedIndex(CONVERT[precision](VECTORS), jnp.asarray(encoded_at))
    params, zero = RagParams({"a": jnp.ones(1)}, {"b": jnp.ones(1)}, {"a": jnp.ones(1)}), jnp.int32(0)
    made_of = {digests.PASSAGES: digests.digest(digests.passage_bytes(STORE))}
    checkpoints = Checkpoints(workdir)
    state = TrainState(jnp.int32(step), params, {}, jax.random.key(0), zero, zero, refreshed=index)
    checkpoints.save(state, {"input": None, "window": [], "made_of": made_of})
    checkpoints.close()
    return dataclasses.replace(CONFIG, retriever=dataclasses.replace(CONFIG.retriever, precision=precision))


@pytest.mark.parametrize(("precision", "bits"), [("float32", 24), ("bfloat16", 8), ("int8", 7)])
def test_the_vectors_are_those_of_the_checkpoint_without_padding(
    tmp_path: Path, precision: Precision, bits: int, capsys
) -> None:
    config = saved(tmp_path, precision, 6)
    store = checkpoint_index.as_searched(STORE, config, tmp_path, 6)
    largest = np.abs(VECTORS[: len(PASSAGES)]).max(axis=1, keepdims=True)
    assert np.all(
        np.abs(store.passage_vectors.whole.astype(np.float32) - VECTORS[: len(PASSAGES)]) <= largest / 2**bits
    )
    assert (store.removed, list(store.passages), store.folder) == (STORE.removed, PASSAGES, None)
    told = "goes on, or was interrupted; searched are the vectors of step 6, the oldest encoded 2 steps earlier;"
    assert told in capsys.readouterr().err


def test_a_trained_run_without_its_index_is_told_so(tmp_path: Path, capsys) -> None:
    config = saved(tmp_path, "float32", 9)
    checkpoint_index.as_searched(STORE, config, tmp_path, 9)
    assert "is trained, but its index is not written; searched are the vectors of step 9" in capsys.readouterr().err


def test_other_passages_are_refused(tmp_path: Path) -> None:
    config = saved(tmp_path, "float32", 6)
    with pytest.raises(InputError, match=r"other passages than when .* was trained; put that index back, or resume"):
        checkpoint_index.as_searched(STORE.remove_rows([0]), config, tmp_path, 6)
