"""Run in two processes: python checkpoint_processes.py PORT PROCESS FOLDER

They write two checkpoints of a sharded state, the first flips a bit of the newest, and both restore. Each prints what
it restored, and what it was told, as JSON.
"""

import json
import sys
from pathlib import Path

import jax

port, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, process)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from rag_jax.core.training import TrainState  # noqa: E402
from rag_jax.pipeline.checkpoints import Checkpoints  # noqa: E402
from rag_jax.types import RagParams  # noqa: E402

mesh = Mesh(np.array(jax.devices()), ("data",))
sharded, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())


def state(step: int) -> TrainState:
    def init() -> TrainState:
        params = RagParams({"word": jnp.full((8, 4), float(step))}, {"bias": jnp.full(4, float(step))})
        none = jnp.zeros((), jnp.int32)
        return TrainState(jnp.int32(step), params, {"mu": params.question_tower}, jax.random.key(step), none, none)

    shardings = jax.tree.map(lambda leaf: sharded if leaf.shape == (8, 4) else replicated, jax.eval_shape(init))
    return jax.jit(init, out_shardings=shardings)()


checkpoints, states = Checkpoints(folder), {step: state(step) for step in (1, 2)}
for step, each in states.items():
    checkpoints.save(each, {"input": {"examples": step}, "window": []})
checkpoints.wait()
if process == 0:
    file = next(file for file in sorted((folder / "checkpoints/2/params/d").rglob("*")) if file.is_file())
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
multihost_utils.sync_global_devices("flipped")
told: list[str] = []
like = states[1]
shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
found = checkpoints.restore(jax.eval_shape(lambda: like), shardings, told.append)
checkpoints.close()
assert found is not None
own = [shard.data.tolist() for shard in found[0].params.question_tower["word"].addressable_shards]
print(json.dumps({"place": found[1], "own": own, "told": told}))
