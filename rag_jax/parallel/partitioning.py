"""Which axis of the mesh each parameter is split along: by the rules of its network's family, the first that matches.

`fsdp` splits a parameter, its gradient and its moments among the devices, which gather it when they compute with it.
`tensor` splits the products themselves: in a pair of matrices the first by columns, the second by rows, so that what
lies between them never travels (Shoeybi et al. 2019). An axis whose devices do not divide the dimension is left out.
"""

import re
from collections.abc import Mapping

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from rag_jax.models import registry
from rag_jax.models.architecture import PARTITION_RULES, GeneratorConfig, PartitionRules, TowerConfig

Rules = Mapping[str, PartitionRules]
"""By the field of `RagParams` that a network is; what is of neither goes by the usual rules."""
USUAL: Rules = {}


def rules(tower: TowerConfig, generator: GeneratorConfig) -> Rules:
    """The rules of the families that these sizes are of."""
    return {
        "question_tower": registry.tower_of(tower).partition_rules,
        "generator": registry.generator_of(generator).partition_rules,
    }


def specs(tree: PyTree, mesh: Mesh, rules: Rules = USUAL) -> PyTree[PartitionSpec]:
    """For each leaf its `PartitionSpec`; moments go by the name of their parameter, which their path ends with."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _spec(path, leaf.shape, mesh, rules), tree)


def _spec(path: tuple, shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> PartitionSpec:
    names = [str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path]
    own = next((rules[name] for name in names if name in rules), PARTITION_RULES)
    found = next((spec for pattern, spec in own if re.search(pattern, "/".join(names))), PartitionSpec())
    if len(found) > len(shape):  # what an optimizer keeps of a parameter in another shape
        return PartitionSpec()
    fitting = (
        axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(found, shape, strict=False)
    )
    return PartitionSpec(*fitting)
