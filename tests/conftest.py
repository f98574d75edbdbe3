"""Strict numerics for every test: implicit dtype and rank promotion are errors, and the core's shapes are checked.

The annotations are checked by beartype here only; in use they cost nothing.
"""

import os

import xla_flags

if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = xla_flags.flags(devices=2)

# FAISS's threads wait without working: two cores are shared by several test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # the suite compiles far longer than it computes
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))

with install_import_hook(["rag_jax.core", "rag_jax.models", "rag_jax.types"], "beartype.beartype"):
    import rag_jax
    import rag_jax.models.bart
    import rag_jax.models.bert  # noqa: F401


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def towns(tmp_path_factory: pytest.TempPathFactory):
    """The config of a run in the small world of `world.py`."""
    import world

    return world.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def trained(towns):
    """That run, trained: (model, results, workdir)."""
    import train

    workdir: Path = towns.data.train.parent / "run"
    return *train.run(towns, workdir), workdir
