"""Plan a run: shapes, memory, sharding, and one step compiled on abstract arrays.

No data is read and nothing is computed. The devices are virtual, as many as the mesh needs, so that a laptop can plan
for a pod. The compiler is the CPU's, so that temporary memory is an estimate.
"""

import dataclasses
import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from rich.console import Group
from rich.table import Table

from rag_jax.config.config import Config
from rag_jax.core import training
from rag_jax.core.refresh import new_index
from rag_jax.core.vectors import quantize_int8
from rag_jax.data.files import format_bytes
from rag_jax.errors import InputError
from rag_jax.hub.published import generator_sizes, tower_sizes
from rag_jax.index import manifest
from rag_jax.index.engines.registry import ENGINES
from rag_jax.index.placement import Placement, padded_rows
from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.parallel import devices, partitioning
from rag_jax.pipeline import finetuning, length_limits, networks, recipes
from rag_jax.pipeline.assembly import index_folder
from rag_jax.pipeline.vectors import with_vectors
from rag_jax.training import checks
from rag_jax.types import Batch, Knowledge, RagParams, SearchResults, Tokens

WIKIPEDIA = 21_015_324  # passages in the paper's index


def report(config: Config, workdir: Path) -> Group:
    """Tables for the terminal. Raises `InputError` for a config that cannot run.

    Call it before JAX initialises its devices: it creates virtual ones.
    """
    checks.check_numbers(config)
    _create_virtual_devices(config.mesh.size)
    devices.check(config)
    tower, reader = checked_sizes(config)
    passages, described = known_passages(config, workdir)
    state, known, batch = arguments(config, tower, reader, passages)
    began = time.perf_counter()
    memory = compiled(config, tower, reader, state, known, batch).memory_analysis()
    seconds = time.perf_counter() - began
    return Group(
        _shapes(config, tower, reader, described),
        "",
        _sharding(state.params, config),
        "",
        _memory(state, known, batch, memory, searched_apart(config, tower, passages)),
        f"\nthe step compiles ({seconds:.0f} s here, for {_devices(config.mesh.size)} of a CPU).",
    )


def known_passages(config: Config, workdir: Path) -> tuple[int, str]:
    """N, and a description: of the run's index if it is built, else of the paper's."""
    index = index_folder(config, workdir)
    if config.data.is_closed_book:
        return 0, "none"
    if not (index / manifest.FILE).exists():
        return WIKIPEDIA, f"{WIKIPEDIA:,}, as Wikipedia has (no index yet: {index})"
    rows = manifest.read(index).rows
    return rows, f"{rows:,} ({index})"


def checked_sizes(config: Config) -> tuple[TowerConfig, GeneratorConfig]:
    """The sizes of the networks. Raises `InputError` for networks that cannot do what the config says."""
    tower, reader = sizes(config)
    source = config.generator.checkpoint or "generator"
    length_limits.check_networks(config, tower, reader)
    networks.check_compute(config, tower, config.retriever.tower)
    networks.check_compute(config, reader, source)
    networks.check_fuses(config, reader, source)
    return tower, reader


def sizes(config: Config) -> tuple[TowerConfig, GeneratorConfig]:
    """The sizes of the networks: published, from their checkpoints, or from the config."""
    c, wanted = config.retriever, config.generator
    tower = with_vectors(tower_sizes(c.tower), c.tower, width=c.vector_width)
    if wanted.checkpoint:
        return tower, generator_sizes(wanted.checkpoint)
    return tower, networks.scratch_config(config, wanted.vocabulary)


def arguments(
    config: Config, tower: TowerConfig, reader: GeneratorConfig, passages: int
) -> tuple[training.TrainState, Knowledge, Batch]:
    """The arguments of a step as shapes with shardings; questions of the longest bucket."""
    mesh = devices.mesh(config)
    passage_tower = _passage_tower(config)
    params = RagParams(
        _shapes_of(registry.tower_of(tower), tower),
        _shapes_of(registry.generator_of(reader), reader),
        None if passage_tower is None else _shapes_of(registry.tower_of(passage_tower), passage_tower),
    )
    finetuning.check_names(config, params)
    recipe = _recipe(config, tower, reader, config.retriever.num_docs, Placement())

    def init(params: RagParams) -> training.TrainState:
        return training.init(recipe, finetuning.with_adapters(config, params), jax.random.key(0))

    state = jax.eval_shape(init, params)
    known, batch = _knowledge(config, tower, passages), _batch(config, tower)
    if passage_tower is not None:
        state = state._replace(refreshed=jax.eval_shape(new_index, known.passage_vectors))
        known = _to_refresh(config, known, passage_tower)
    if mesh is None:
        return state, known, batch
    by_row = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rules = partitioning.rules(tower, reader, passage_tower)
    return (
        jax.tree.map(_with_sharding, state, devices.shardings(state, mesh, rules)),
        jax.tree.map(lambda leaf: _with_sharding(leaf, by_row), known),
        jax.tree.map(lambda leaf: _with_sharding(leaf, NamedSharding(mesh, devices.BATCH)), batch),
    )


def compiled(
    config: Config,
    tower: TowerConfig,
    reader: GeneratorConfig,
    state: training.TrainState,
    known: Knowledge,
    batch: Batch,
) -> Any:
    """The compiled step. Rounded factors are an option of an accelerator's products, and no arrays as on a CPU."""
    config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, matmul_precision="default"))
    mesh = devices.mesh(config)
    placement = Placement(mesh, config.retriever.precision, ("data", "fsdp"))
    recipe = _recipe(config, tower, reader, _num_docs(config), placement)
    step = devices.jitted(partial(training.train_step, recipe), mesh, state)
    gold = jax.ShapeDtypeStruct((config.batch_size, 1), jnp.int32)
    return step.lower(state, known, batch, gold, _found(config)).compile()


def _recipe(
    config: Config, tower: TowerConfig, reader: GeneratorConfig, num_docs: int, placement: Placement
) -> training.Recipe:
    how = num_docs, recipes.layout(config), placement, _passage_tower(config)
    return recipes.recipe(config, tower, reader, *how)


def _passage_tower(config: Config) -> TowerConfig | None:
    """The sizes of the passage tower, if it is trained."""
    c = config.retriever
    source = c.passage_tower or c.tower
    return with_vectors(tower_sizes(source), source, width=c.vector_width) if c.train_passages else None


def _shapes_of(family: Any, sizes: Any) -> Any:
    return jax.eval_shape(partial(family.init, sizes), jax.random.key(0))


def _create_virtual_devices(count: int) -> None:
    """Create as many virtual devices as the mesh needs."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(count, 1))
    if len(jax.devices()) < count:
        raise InputError(f"a dry run over {count} devices must come first in a process; {len(jax.devices())} are there")


def _knowledge(config: Config, tower: TowerConfig, passages: int) -> Knowledge:
    if config.data.is_closed_book or ENGINES[config.retriever.engine].on_host:
        rows = config.batch_size * _num_docs(
            config
        )  # the passages that a host search returns, or an empty one for each question
    else:
        rows = padded_rows(passages, config.mesh.size)
    ids = _like((rows, config.generator.max_passage), jnp.uint16)
    return Knowledge(_vectors(config, tower, rows), Tokens(ids, _int32(rows)), _like((rows,), jnp.bool_))


def _vectors(config: Config, tower: TowerConfig, rows: int) -> PyTree:
    """The vectors of so many passages, at the precision of the index."""
    if config.retriever.precision == "int8":
        return jax.eval_shape(quantize_int8, _like((rows, tower.vector_width), jnp.float32))
    return _like((rows, tower.vector_width), config.retriever.precision)


def searched_apart(config: Config, tower: TowerConfig, passages: int) -> int:
    """Bytes per device of vectors that an engine on the host searches on the devices."""
    if not (config.searches and ENGINES[config.retriever.engine].searches_apart):
        return 0
    leaves = jax.tree.leaves(_vectors(config, tower, padded_rows(passages, config.mesh.size)))
    return sum(map(_bytes_per_device, leaves)) // config.mesh.size


def _to_refresh(config: Config, known: Knowledge, passage_tower: TowerConfig) -> Knowledge:
    """The knowledge of a step whose vectors are in its state: with the passages as the passage tower reads them."""
    rows = known.passage_tokens.lengths.shape[0]
    ids = _like((rows, config.retriever.max_passage), jnp.uint16 if passage_tower.vocab_size <= 2**16 else jnp.int32)
    no_vectors = _like((0, passage_tower.vector_width), jnp.float32)
    return known._replace(passage_vectors=no_vectors, tower_tokens=Tokens(ids, _int32(rows)))


def _batch(config: Config, tower: TowerConfig) -> Batch:
    size, target = config.batch_size, config.generator.max_target
    question, prompt = length_limits.length_buckets(config, tower.max_positions)[-1]
    mask = _like((size, target), jnp.bool_)
    asked, prompted = (Tokens(_int32(size, length), _int32(size)) for length in (question, prompt))
    return Batch(asked, prompted, _int32(size, target), _int32(size, target), mask)


def _found(config: Config) -> SearchResults | None:
    kind = ENGINES[config.retriever.engine]
    if kind.in_step or not config.searches:
        return None
    shape = config.batch_size, config.retriever.num_docs
    scores = _like(shape, jnp.float32) if kind.scores_are_prior else None
    return SearchResults(_int32(*shape), scores)


def _like(shape: tuple[int, ...], dtype: Any) -> Any:
    """A shape and dtype in place of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _int32(*shape: int) -> Any:
    return _like(shape, jnp.int32)


def _with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _num_docs(config: Config) -> int:
    return 1 if config.data.is_closed_book else config.retriever.num_docs


def _shapes(config: Config, tower: TowerConfig, reader: GeneratorConfig, passages: str) -> Table:
    table = Table("a step", "", box=None, pad_edge=False)
    question, prompt = length_limits.length_buckets(config, tower.max_positions)[-1]
    together = config.generator.passages_per_prompt
    length = min(together * config.generator.max_passage + prompt, config.generator.max_input)
    size, k, target = config.batch_size, _num_docs(config), config.generator.max_target
    inputs = -(-k // together)
    rows = {
        "questions B": f"{size} of {question} tokens at most",
        "passages": f"K = {k} of {passages}",
        "vectors": f"of {tower.vector_width} ({config.retriever.precision})",
        "generator": f"{size * inputs} rows of S = {length} tokens, T = {target}",
        "logits": f"{(size, inputs, target, reader.vocab_size)} {config.compute.dtype}",
        "networks": f"{registry.tower_of(tower).describe(tower)}, {registry.generator_of(reader).describe(reader)}",
        "steps": f"{config.steps:,}, a checkpoint every {config.save_every:,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _sharding(params: RagParams, config: Config) -> Table:
    mesh = config.mesh
    table = Table(
        f"parameters on {mesh.data} x {mesh.fsdp} x {mesh.tensor} (data, fsdp, tensor)",
        "shape",
        "split",
        box=None,
        pad_edge=False,
    )
    seen: Counter[tuple] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = leaf.sharding.spec if isinstance(leaf.sharding, NamedSharding) else "whole"
        network, *inside = (str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)
        seen[(f"{network} {'/'.join(inside[-2:])}", leaf.shape, str(spec))] += 1
    for (name, shape, spec), count in seen.items():
        if math.prod(shape) >= 1e5:
            table.add_row(f"{name} ({count})", str(shape), spec)
    return table


def _memory(state: training.TrainState, known: Knowledge, batch: Batch, analysis: Any, searched_apart: int) -> Table:
    table = Table("on each device", "memory", box=None, pad_edge=False)
    components: dict[str, PyTree] = {
        "parameters": state.params,
        "moments": state.opt_state,
        "index: vectors": known.passage_vectors if state.refreshed is None else state.refreshed,
        "index: tokens": (known.passage_tokens, known.tower_tokens),
        "batch": batch,
    }
    held = {name: sum(map(_bytes_per_device, jax.tree.leaves(tree))) for name, tree in components.items()}
    held["index: vectors"] += searched_apart
    held["gradients, activations (an estimate: the CPU's compiler)"] = analysis.temp_size_in_bytes
    for name, size in (held | {"in all": sum(held.values())}).items():
        table.add_row(name, format_bytes(size))
    return table


def _bytes_per_device(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of a leaf on one device."""
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * (4 if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize)


def _devices(count: int) -> str:
    return "one device" if count == 1 else f"{count} virtual devices"
