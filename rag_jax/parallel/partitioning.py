"""Partition specs of parameters: the first matching rule of the network's family.

`fsdp` shards a parameter, its gradient and its moments; devices gather it to compute. `tensor` shards matrix products:
the first of a pair by columns, the second by rows, so that the activations between them are not communicated
(Shoeybi et al. 2019). An axis that does not divide the dimension is left out.
"""

import re
from collections.abc import Mapping

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from rag_jax.core.lora import ADAPTERS, KERNEL, A
from rag_jax.core.trainable import path_name
from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig, PartitionRules, TowerConfig

PARTITION_RULES: PartitionRules = (
    # by the names that the layers of `rag_jax.models` have
    (r"word/embedding$", PartitionSpec("tensor", "fsdp")),  # V x width, tied to the head
    (r"(position|token_type)/embedding$", PartitionSpec()),  # small: replicated
    (r"(query|key|value|up|gate|head)/kernel$", PartitionSpec("fsdp", "tensor")),  # by columns
    (r"(query|key|value|up)/bias$", PartitionSpec("tensor")),
    (r"(out|down)/kernel$", PartitionSpec("tensor", "fsdp")),  # by rows
    (r"projection/kernel$", PartitionSpec("fsdp", None)),
    (r"", PartitionSpec()),  # other biases, LayerNorms: replicated
)

INDEX = "refreshed/"  # leaves of a training state that are rows of an index: every device has its share

Rules = Mapping[str, PartitionRules]
"""Rules by field of `RagParams` or `BiEncoderParams`; other leaves use those of `OTHERS`, or `PARTITION_RULES`."""
OTHERS = ""
USUAL: Rules = {}


def rules(
    tower: TowerConfig, generator: GeneratorConfig | None = None, passage_tower: TowerConfig | None = None
) -> Rules:
    """The rules of the families of these networks, where they have their own."""
    own = {
        "question_tower": registry.tower_of(tower).partition_rules,
        "passage_tower": None if passage_tower is None else registry.tower_of(passage_tower).partition_rules,
        "generator": None if generator is None else registry.generator_of(generator).partition_rules,
    }
    return {name: rules for name, rules in own.items() if rules is not None}


def rules_of(generator: GeneratorConfig) -> Rules:
    """The rules of a training state whose parameters are those of one generator."""
    own = registry.generator_of(generator).partition_rules
    return USUAL if own is None else {OTHERS: own}


def specs(tree: PyTree, mesh: Mesh, rules: Rules = USUAL) -> PyTree[PartitionSpec]:
    """The `PartitionSpec` of each leaf; moments match by the parameter name at the end of their path."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _spec(path, leaf.shape, mesh, rules), tree)


def _adapter_spec(leaf: str, kernel: PartitionSpec) -> PartitionSpec:
    """A is split as its kernel's rows, B as its columns: each device multiplies out its own part of the kernel."""
    rows, columns = (*kernel, None, None)[:2]
    return PartitionSpec(rows, None) if leaf == A else PartitionSpec(None, columns)


def _spec(path: tuple, shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> PartitionSpec:
    name = path_name(path)
    if name.startswith(INDEX):
        return PartitionSpec(mesh.axis_names)
    own = next((rules[each] for each in name.split("/") if each in rules), rules.get(OTHERS, PARTITION_RULES))
    module, _, leaf = name.rpartition("/")
    is_adapter = leaf in ADAPTERS
    matched = f"{module}/{KERNEL}" if is_adapter else name
    found = next((spec for pattern, spec in own if re.search(pattern, matched)), PartitionSpec())
    if is_adapter:
        found = _adapter_spec(leaf, found)
    if len(found) > len(shape):  # optimizer state of another shape than its parameter
        return PartitionSpec()
    fitting = (
        axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(found, shape, strict=False)
    )
    return PartitionSpec(*fitting)
