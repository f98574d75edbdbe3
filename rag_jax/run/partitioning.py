"""Which axis of the mesh each parameter is split along: one table, read from the top, the first pattern decides.

`fsdp` splits a parameter, its gradient and its moments among the devices, which gather it when they compute with it.
`tensor` splits the products themselves: in a pair of matrices the first by columns, the second by rows, so that what
lies between them never travels (Shoeybi et al. 2019). An axis whose devices do not divide the dimension is left out.
"""

import re

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

TABLE = (
    # parameter                                dimensions
    (r"word/embedding$", PartitionSpec("tensor", "fsdp")),  # V x width; the tied head's too
    (r"(position|token_type)/embedding$", PartitionSpec()),  # small, and looked up by numbers that all devices share
    (r"(query|key|value|up)/kernel$", PartitionSpec("fsdp", "tensor")),  # by columns
    (r"(query|key|value|up)/bias$", PartitionSpec("tensor")),
    (r"(out|down)/kernel$", PartitionSpec("tensor", "fsdp")),  # by rows
    (r"projection/kernel$", PartitionSpec("fsdp", None)),
    (r"", PartitionSpec()),  # biases behind sums, LayerNorms, counters: whole on every device
)


def specs(tree: PyTree, mesh: Mesh) -> PyTree[PartitionSpec]:
    """For each leaf its `PartitionSpec`; moments go by the name of their parameter, which their path ends with."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _spec(path, leaf.shape, mesh), tree)


def _spec(path: tuple, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    name = "/".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)
    found = next(spec for pattern, spec in TABLE if re.search(pattern, name))
    if len(found) > len(shape):  # what an optimizer keeps of a parameter in another shape
        return PartitionSpec()
    fitting = (
        axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(found, shape, strict=False)
    )
    return PartitionSpec(*fitting)
