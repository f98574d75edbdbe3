"""Programs of full-size networks over eight virtual devices, compiled from shapes: what they hold and exchange.

    python tests/support/full_size_programs.py train|answer REPOSITORY

Nothing is allocated and nothing runs. The compiler is the CPU's: it widens bfloat16 to float32.
"""

import json
import math
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from rag_jax.config.config import Compute, Config, Data, Generator, Mesh, Retriever
from rag_jax.config.generation import ConstraintTokens, GenerationConfig
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.index.placement import Placement
from rag_jax.parallel import devices
from rag_jax.pipeline import programs, recipes
from rag_jax.training import dry_run
from rag_jax.types import InferenceBatch, Tokens

B, K, L, T, PASSAGE, BEAMS = 8, 5, 36, 32, 256, 4
LENGTH = PASSAGE + L  # S
MESH = Mesh(data=1, fsdp=4, tensor=2)


def config(generator: str) -> Config:
    """RAG-Token of DPR's question encoder and a published generator, in bfloat16, over a small index."""
    return Config(
        data=Data(passages=Path("passages.tsv"), train=Path("train.jsonl")),
        retriever=Retriever("facebook/dpr-question_encoder-single-nq-base", num_docs=K, max_question=32),
        generator=Generator(checkpoint=generator, max_passage=PASSAGE, max_input=LENGTH, max_target=T),
        compute=Compute(dtype="bfloat16", remat="full", scan=True),
        mesh=MESH,
        batch_size=B,
        buckets=((32, L),),
    )


def compiled(what: str, config: Config) -> tuple[Any, Any]:
    """What the program is given of the model, as shapes with shardings, and the program."""
    networks = dry_run.sizes(config)
    state, known, batch = dry_run.arguments(config, *networks, passages=1_000)
    if what == "train":
        return state, dry_run.compiled(config, *networks, state, known, batch)
    mesh, size = devices.mesh(config), config.batch_size
    answering = programs.answering(
        recipes.inference_networks(config, *networks, mesh),
        config.model,
        GenerationConfig(num_beams=BEAMS),
        GenerationLimits((1,), 2, config.generator.max_target),
        ConstraintTokens((), None),
        config.retriever.num_docs,
        recipes.layout(config),
        place=Placement(mesh, batch=("data", "fsdp")),
    )
    key, numbers = jax.eval_shape(lambda: (jax.random.key(0), jnp.arange(size)))
    no_prefix = Tokens(jax.ShapeDtypeStruct((size, 0), jnp.int32), numbers)
    asked = InferenceBatch(batch.question, batch.prompt), no_prefix, None, key, numbers
    return state.params, answering.lower(state.params, known, *asked).compile()


def held(leaf: Any) -> int:
    """Bytes of a leaf on each device."""
    shape = leaf.sharding.shard_shape(leaf.shape) if isinstance(leaf.sharding, NamedSharding) else leaf.shape
    return math.prod(shape) * leaf.dtype.itemsize


EXCHANGE = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
CALLED = re.compile(r"(?:body|calls|to_apply|(?:true|false)_computation)=%([\w.-]+)|branch_computations={(.*?)}")


def exchanges(program: str) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """The arrays that devices exchange: how, their shape, and whether it is inside a loop."""
    parts = dict(re.findall(r"^(?:ENTRY )?%([\w.-]+) \(.*?{\n(.*?)^}", program, re.MULTILINE | re.DOTALL))
    looped, found = set(), re.findall(r"body=%([\w.-]+)", program)
    while found:
        name = found.pop()
        if name not in looped:
            looped.add(name)
            calls = CALLED.findall(parts.get(name, ""))
            found += [each for one, several in calls for each in (one, *re.findall(r"%([\w.-]+)", several)) if each]
    for name, text in parts.items():
        for shape, kind in EXCHANGE.findall(text):
            for dims in re.findall(r"\w+\[([\d,]*)\]", shape):
                yield kind, tuple(map(int, filter(None, dims.split(",")))), name in looped


def main(what: str, generator: str) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", MESH.size)
    began = time.perf_counter()
    model, program = compiled(what, config(generator))
    leaves = [leaf for leaf in jax.tree.leaves(model) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    params = model.params if what == "train" else model
    memory = program.memory_analysis()
    told = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params.generator)),
        "width": params.generator["word"]["embedding"].shape[1],
        "vocabulary": params.generator["word"]["embedding"].shape[0],
        "largest": max(leaf.size for leaf in jax.tree.leaves(params.generator)),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        "held": sum(map(held, leaves)),
        "whole": max(held(leaf) for leaf in leaves if held(leaf) == leaf.size * leaf.dtype.itemsize),
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "exchanges": sorted(set(exchanges(program.as_text()))),
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
