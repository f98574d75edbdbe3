"""Which axis splits what: every matrix of both networks, moments as their parameter, and small things none."""

import jax
import optax
from jax.sharding import AxisType, PartitionSpec

from rag_jax.core import lora, trainable
from rag_jax.models import bart, bert
from rag_jax.parallel import partitioning
from rag_jax.types import RagParams

TOWER = bert.BertConfig(vocab_size=64, width=32, layers=1, heads=2, ffn_width=64, max_positions=16)
READER = bart.BartConfig(
    vocab_size=64, width=32, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=64, max_positions=16
)
WHOLE = PartitionSpec()


def mesh(data: int = 1, fsdp: int = 1, tensor: int = 1) -> jax.sharding.Mesh:
    return jax.make_mesh((data, fsdp, tensor), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def params() -> RagParams:
    return jax.eval_shape(lambda key: RagParams(bert.init(TOWER, key), bart.init(READER, key)), jax.random.key(0))


def named(tree) -> dict[str, PartitionSpec]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda each: isinstance(each, PartitionSpec))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): spec for path, spec in leaves}


def test_every_matrix_is_split_and_every_vector_behind_a_sum_is_whole() -> None:
    found = named(partitioning.specs(params(), mesh(fsdp=2)))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params())
    }
    for name, spec in found.items():
        is_split = "fsdp" in spec
        is_small = len(shapes[name]) < 2 or "position" in name or "token_type" in name
        assert is_split != is_small, f"{name}: {spec}"


def test_adapters_are_split_as_the_rows_and_columns_of_their_kernel() -> None:
    def adapted(params: RagParams) -> RagParams:
        kernels = [name for name in trainable.names(params.generator) if name.endswith(("up/kernel", "down/kernel"))]
        return params._replace(generator=lora.init(params.generator, kernels, 2, jax.random.key(0)))

    tree = jax.eval_shape(adapted, params())
    own = {"generator": ((r"up/kernel$", PartitionSpec(None, "fsdp")),)}
    for rules, up, down in (
        ({}, ("fsdp", "tensor"), ("tensor", "fsdp")),
        (own, (None, "fsdp"), (None, None)),
    ):
        found = named(partitioning.specs(tree, mesh(fsdp=2), rules))
        moments = named(partitioning.specs(optax.adam(0.1).init(tree), mesh(fsdp=2), rules))
        for kernel, (rows, columns) in (("up", up), ("down", down)):
            for specs in (found, moments):
                names = {leaf: f"generator/decoder_layers_0/ffn/{kernel}/{leaf}" for leaf in lora.ADAPTERS}
                of = {
                    leaf: {spec for each, spec in specs.items() if each.endswith(name)} for leaf, name in names.items()
                }
                assert of == {lora.A: {PartitionSpec(rows, None)}, lora.B: {PartitionSpec(None, columns)}}


def test_a_pair_of_matrices_is_split_by_columns_and_then_by_rows() -> None:
    found = named(partitioning.specs(params(), mesh(tensor=2)))
    for first, second in (("up", "down"), ("value", "out")):
        columns = {spec for name, spec in found.items() if name.endswith(f"{first}/kernel")}
        rows = {spec for name, spec in found.items() if name.endswith(f"{second}/kernel")}
        assert columns == {PartitionSpec("fsdp", "tensor")}
        assert rows == {PartitionSpec("tensor", "fsdp")}


def test_moments_lie_where_their_parameter_does() -> None:
    optimizer = optax.adam(1e-3)
    state = jax.eval_shape(optimizer.init, params())[0]
    own = partitioning.specs(params(), mesh(fsdp=2))
    assert partitioning.specs(state.mu, mesh(fsdp=2)) == own
    assert partitioning.specs(state.nu, mesh(fsdp=2)) == own
    assert partitioning.specs(state.count, mesh(fsdp=2)) == WHOLE


def test_a_dimension_that_does_not_divide_stays_whole() -> None:
    like = {"up": {"kernel": jax.ShapeDtypeStruct((33, 64), "float32")}}
    assert partitioning.specs(like, mesh(fsdp=2)) == {"up": {"kernel": PartitionSpec(None, "tensor")}}
