"""Strict numerics for every test: implicit dtype and rank promotion are errors, and the core's shapes are checked.

The annotations are checked by beartype here only; in use they cost nothing.
"""

import gc
import json
import os
import shutil

import xla_flags

if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = xla_flags.flags(devices=2)

# FAISS's threads wait without working: two cores are shared by several test processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import jax
import pytest
from filelock import FileLock
from hypothesis import settings
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # the suite compiles far longer than it computes
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# without a deadline: an example that compiles a program takes seconds
settings.register_profile("few", max_examples=50, deadline=None)
settings.register_profile("extended", max_examples=100, deadline=None)  # for `make test-all`
settings.register_profile("many", max_examples=500, deadline=None)  # for `make proof`
settings.load_profile("few")

with install_import_hook(["rag_jax.core", "rag_jax.models", "rag_jax.types"], "beartype.beartype"):
    import rag_jax
    import rag_jax.models.bart
    import rag_jax.models.bert


@pytest.fixture(scope="module", autouse=True)
def _bounded_maps():
    """Free the compiled programs of earlier test files before the process runs out of memory maps.

    Each takes three of the 65,530 that Linux grants a process; past those, the next compilation ends in a segmentation
    fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 10_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def towns(shared: Path):
    """The config of a run in the small world of `world.py`, which is written once for all processes."""
    import world

    with FileLock(shared / "world.lock"):
        if not (shared / "world").exists():
            world.write(shared / "world")
    return world.config(shared / "world")


@pytest.fixture(scope="session")
def trained(towns, shared: Path, tmp_path_factory: pytest.TempPathFactory):
    """That run, trained once for all processes, in a copy of this one's own: (model, results, workdir)."""
    from rag_jax.training.run import train_and_evaluate

    workdir, own = shared / "trained", tmp_path_factory.mktemp("trained") / "run"
    with FileLock(shared / "trained.lock"):
        if not (workdir / "results.json").exists():
            train_and_evaluate(towns, workdir)
    shutil.copytree(workdir, own)
    return rag_jax.RAG.from_workdir(own), json.loads((own / "results.json").read_text()), own
