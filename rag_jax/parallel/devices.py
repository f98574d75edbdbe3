"""Devices of a run: join processes, build the mesh, shard arrays.

A run on one device has no mesh.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rag_jax.config import config as configs
from rag_jax.config.config import Config
from rag_jax.config.files import AnyConfig
from rag_jax.errors import InputError
from rag_jax.parallel import host, partitioning

Tree = TypeVar("Tree")
AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # the questions of a batch
WHOLE = PartitionSpec()  # replicated


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Initialise `jax.distributed`; without arguments, from the cluster's environment (TPU, SLURM).

    Call it before any other use of JAX. Raises `InputError` if the coordinator cannot be reached.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of processes whose devices are CPUs
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = "give --coordinator HOST:PORT, --processes and --process"
        raise InputError(f"the processes cannot be joined ({reason[:200]}); {remedy}") from None


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def check(config: AnyConfig) -> None:
    """Reject a mesh that does not divide the devices, and a batch that the mesh does not divide."""
    mesh, there = config.mesh, len(jax.devices())
    problem = f"mesh: data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor}"
    if min(mesh.data, mesh.fsdp, mesh.tensor) < 1:
        raise InputError(f"{problem}; give 1 or more of each")
    if mesh.size > there or there % mesh.size:
        raise InputError(f"{problem} = {mesh.size} devices, there {_are(there)}; give a product that divides {there}")
    if jax.process_count() > 1 and mesh.size != there:
        raise InputError(f"{problem} = {mesh.size} devices; {jax.process_count()} processes use all of their {there}")
    parts, shares = config.compute.accumulate, mesh.data * mesh.fsdp
    if parts < 1:
        raise InputError(f"compute.accumulate is {parts}; give 1 or more")
    if config.batch_size % (parts * shares):
        split = f"{parts} parts (compute.accumulate) on {shares} devices (mesh.data x mesh.fsdp)"
        raise InputError(
            f"batch_size {config.batch_size} does not divide into {split}; give a multiple of {parts * shares}"
        )


def unused(config: AnyConfig) -> str | None:
    """A line on devices that a run leaves idle; None where it uses all."""
    there, used = len(jax.devices()), config.mesh.size
    if used >= there:
        return None
    return f"the mesh uses {used} of {there} devices; --mesh.data {there * config.mesh.data // used} uses all"


def mesh(config: AnyConfig) -> Mesh | None:
    """The mesh of a run; None for a single device."""
    shape = config.mesh
    if shape.size == 1 and jax.process_count() == 1:
        return None
    sizes = shape.data, shape.fsdp, shape.tensor
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[: shape.size])


def fit_to_devices(config: Config) -> Config:
    """The config, with one device if the mesh needs more than there are: a laptop can run a pod's model."""
    return config if config.mesh.size <= len(jax.devices()) else dataclasses.replace(config, mesh=configs.Mesh())


def shardings(
    like: PyTree, mesh: Mesh | None, rules: partitioning.Rules = partitioning.USUAL
) -> PyTree[NamedSharding] | None:
    """The sharding of each leaf of a training state, see `rag_jax.parallel.partitioning`."""
    if mesh is None:
        return None
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), partitioning.specs(like, mesh, rules))


def jitted(step: Callable, mesh: Mesh | None, state: PyTree, matmul_precision: str = "default") -> Any:
    """Jit a training step: the state is donated and keeps its sharding, the metrics are replicated.

    `matmul_precision`, that of the networks, decides how the CPU's compiler multiplies.
    """
    options = host.product_options(matmul_precision)
    if mesh is None:
        return jax.jit(step, donate_argnums=0, compiler_options=options)
    outputs = jax.tree.map(lambda leaf: leaf.sharding, state), NamedSharding(mesh, WHOLE)
    return jax.jit(step, donate_argnums=0, out_shardings=outputs, compiler_options=options)


def compile_per_shape(step: Any) -> Callable:
    """Compile a jitted step once per input shape, and release the compiler's memory before it runs."""
    programs = {}

    def call(state: PyTree, *inputs: PyTree) -> Any:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(inputs))
        if shapes not in programs:
            programs[shapes] = step.lower(state, *inputs).compile()
            host.release_memory()
        return programs[shapes](state, *inputs)

    return call


def put(tree: PyTree, wanted: PyTree[NamedSharding]) -> PyTree[jax.Array]:
    """Shard arrays of which every process holds a full copy."""

    def spread(leaf, sharding: NamedSharding) -> jax.Array:
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(spread, tree, wanted)


def local_slice(mesh: Mesh | None, size: int) -> slice:
    """The questions of a batch of `size` that this process loads."""
    if mesh is None:
        return slice(0, size)
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((size,)).values()
    bounds = [place[0].indices(size) for place in places if place is not None]
    return slice(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def shard_batch(mesh: Mesh | None, size: int, read: Callable[[slice], PyTree]) -> PyTree:
    """Shard a batch of `size` questions over the mesh; `read` loads this process's slice."""
    own = local_slice(mesh, size)
    held = read(own)
    if mesh is None:
        return held
    spread = NamedSharding(mesh, BATCH)

    def placed(leaf: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(size)
            return leaf[start - own.start : stop - own.start]

        return jax.make_array_from_callback((size, *leaf.shape[1:]), spread, piece)

    return jax.tree.map(placed, held)


def shard(batch: Tree, mesh: Mesh | None) -> Tree:
    """Shard a batch that every process holds: every array by its first axis, which the devices divide."""
    return jax.tree.map(lambda leaf: shard_batch(mesh, len(leaf), lambda own: leaf[own]), batch)


def whole(params: Tree) -> Tree:
    """Parameters in the memory of this process, whole."""

    def gathered(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if leaf.is_fully_replicated or leaf.is_fully_addressable:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gathered, params)


def wait_for_all(what: str) -> None:
    """Wait until every process has come to the same place: when one ends, the others do too."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def enable_compilation_cache(config: AnyConfig) -> None:
    """Enable JAX's persistent compilation cache if the config names a folder."""
    if config.compute.cache is not None:
        jax.config.update("jax_compilation_cache_dir", os.fspath(config.compute.cache))


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"
