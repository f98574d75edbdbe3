"""Run in a process of its own: training and answering over eight devices beside one, told as JSON on the last line."""

import json
import os

import xla_flags

os.environ["XLA_FLAGS"] = xla_flags.flags(devices=8)

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rag_jax.core import lora, losses, optimizers, retrieval, trainable, training
from rag_jax.core.decode import beam, decoding, rag_token
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.index.placement import Placement
from rag_jax.models import bart, bert
from rag_jax.parallel import devices
from rag_jax.types import Batch, InferenceBatch, Int8Vectors, Knowledge, Networks, RagParams, Tokens

B, K, N, D, P, T, V = 3, 4, 1_003, 16, 12, 5, 50
WIKIPEDIA = 21_015_324
TOWER = bert.BertConfig(vocab_size=V, width=D, layers=1, heads=2, ffn_width=32, max_positions=16, dropout=0.0,
                        attention_dropout=0.0)  # fmt: skip
READER = bart.BartConfig(vocab_size=V, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=32,
                         max_positions=32, dropout=0.0)  # fmt: skip
NETWORKS = Networks(bert.tower(TOWER), bart.generator(READER))


def tokens(draw: np.random.Generator, *shape: int) -> Tokens:
    ids = draw.integers(3, V, shape).astype(np.int32)
    return Tokens(jnp.asarray(ids), jnp.asarray(draw.integers(2, shape[-1] + 1, shape[:-1]).astype(np.int32)))


def world() -> tuple[RagParams, Knowledge, Batch]:
    draw = np.random.default_rng(0)
    params = RagParams(bert.init(TOWER, jax.random.key(0)), bart.init(READER, jax.random.key(1)))
    rows = -(-N // 8) * 8
    alive = jnp.arange(rows) < N
    known = Knowledge(jnp.asarray(draw.standard_normal((rows, D)).astype(np.float32)), tokens(draw, rows, P), alive)
    target = draw.integers(3, V, (B, T)).astype(np.int32)
    question = tokens(draw, B, 6), tokens(draw, B, 7)
    mask = jnp.ones((B, T), bool)
    return params, known, Batch(*question, jnp.asarray(target), jnp.asarray(np.roll(target, -1, 1)), mask)


def trained(lookup: retrieval.Index, params: RagParams, known: Knowledge, batch: Batch):
    """Three steps: their losses, what they retrieved, and the parameters."""
    recipe = training.Recipe(NETWORKS, losses.rag_token_loss, optax.sgd(0.1), K, InputLayout(24), lookup=lookup)
    state = training.init(recipe, params, jax.random.key(2))
    step, told = jax.jit(partial(training.train_step, recipe)), []
    for _ in range(3):
        state, metrics = step(state, known, batch, jnp.zeros((B, 1), jnp.int32))
        told.append(float(metrics.loss))
    return told, state.params


def adapted(mesh: Mesh | None, params: RagParams, known: Knowledge, batch: Batch):
    """Three steps with LoRA, adapters and kernels sharded by `partitioning`: losses, and the trained parameters."""
    mask = partial(jax.tree_util.tree_map_with_path, lambda path, _: path[-1].key in lora.ADAPTERS)
    kernels = [name for name in trainable.names(params.generator) if name.endswith("kernel")]
    params = params._replace(generator=lora.init(params.generator, kernels, 2, jax.random.key(3)))
    networks = NETWORKS._replace(generator=lora.generator(NETWORKS.generator, 4.0))
    optimizer = optimizers.rag(optimizers.adamw(0.01, 0.0), optimizers.adamw(0.01, 0.0), 1.0)
    recipe = training.Recipe(networks, losses.rag_token_loss, optimizer, K, InputLayout(24), trainable=mask)
    state, told = training.init(recipe, params, jax.random.key(2)), []
    step = devices.jitted(partial(training.train_step, recipe), None, state)
    if mesh is not None:
        state = jax.device_put(state, devices.shardings(state, mesh))
        step = devices.jitted(partial(training.train_step, recipe), mesh, state)
    for _ in range(3):
        state, metrics = step(state, known, batch, jnp.zeros((B, 1), jnp.int32))
        told.append(float(metrics.loss))
    return told, trainable.partition(state.params, mask)[0]


def answered(lookup: retrieval.Index, params: RagParams, known: Knowledge, batch: Batch):
    limits = GenerationLimits((0,), 2, 6)
    search = partial(beam.search, num_beams=2)
    decoder = partial(rag_token.decode, search=search, limits=limits, n_best=2)
    fixed = {"decoder": decoder, "num_docs": K, "layout": InputLayout(24), "index": lookup}
    inputs = InferenceBatch(batch.question, batch.prompt)
    nothing = Tokens(jnp.zeros((B, 0), jnp.int32), jnp.zeros(B, jnp.int32))
    return jax.jit(partial(decoding.answer, NETWORKS, **fixed))(params, known, inputs, nothing)


def wikipedia(place: Placement, params: RagParams, batch: Batch) -> dict[str, int]:
    """The train step with an index of Wikipedia's size, compiled and not run: bytes on each of the devices."""
    rows, spread = -(-WIKIPEDIA // 8) * 8, NamedSharding(place.mesh, PartitionSpec("index"))
    whole = NamedSharding(place.mesh, PartitionSpec())

    def like(shape: tuple, kind: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, kind, sharding=spread)

    passages = Tokens(like((rows, 160), "uint16"), like((rows,), "int32"))
    vectors = Int8Vectors(like((rows, D), "int8"), like((rows,), "float32"))
    known = Knowledge(vectors, passages, like((rows,), "bool"))
    recipe = training.Recipe(NETWORKS, losses.rag_token_loss, optax.sgd(0.1), K, InputLayout(24), lookup=place.index)
    state = jax.eval_shape(partial(training.init, recipe), params, jax.random.key(2))
    given = state, batch, jnp.zeros((B, 1), jnp.int32)
    state, batch, gold = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), given)
    step = jax.jit(partial(training.train_step, recipe))
    memory = step.lower(state, known, batch, gold).compile().memory_analysis()
    return {"arguments": memory.argument_size_in_bytes, "temporary": memory.temp_size_in_bytes}


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # nearly all of the time is compilation
    params, known, batch = world()
    place = Placement(jax.make_mesh((8,), ("index",), axis_types=(AxisType.Auto,)))
    spread = jax.device_put(known, NamedSharding(place.mesh, PartitionSpec("index")))
    everywhere = place.replicate(params)
    cube = jax.make_mesh((2, 2, 2), devices.AXES, axis_types=(AxisType.Auto,) * 3)
    lora_one, lora_eight = (adapted(mesh, params, known, batch) for mesh in (None, cube))
    one, eight = trained(retrieval.LOCAL, params, known, batch), trained(place.index, everywhere, spread, batch)
    alone, together = answered(retrieval.LOCAL, params, known, batch), answered(place.index, everywhere, spread, batch)
    jax.config.update("jax_disable_most_optimizations", False)  # memory is what the optimised program takes
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - jax.device_put(b, a.sharding)))), one[1], eight[1])
    lora_apart = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), lora_one[1], lora_eight[1]
    )
    told = {
        "devices": len(jax.devices()),
        "losses": [one[0], eight[0]],
        "parameters": max(jax.tree.leaves(apart)),
        "lora losses": [lora_one[0], lora_eight[0]],
        "adapters": max(jax.tree.leaves(lora_apart)),
        "split": sum(leaf.addressable_shards[0].data.size < leaf.size for leaf in jax.tree.leaves(lora_eight[1])),
        "rows": [np.asarray(each.retrieved.rows).tolist() for each in (alone, together)],
        "answers": [np.asarray(each.decoded.tokens).tolist() for each in (alone, together)],
        "log_probs": [np.asarray(each.decoded.log_prob).tolist() for each in (alone, together)],
        "wikipedia": wikipedia(place, params, batch),
        "each": (-(-WIKIPEDIA // 8)) * (D + 4 + 2 * 160 + 4 + 1),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
