"""Decoding in bfloat16: RAG-Token and RAG-Sequence, from question tokens and their passages to answers."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator import device
from benchmarks.accelerator.part import Record, reason, run, spread
from benchmarks.accelerator.scale import Scale
from benchmarks.accelerator.weights import configs, params
from benchmarks.cases import Case
from benchmarks.ours import END, START, answering, full
from rag_jax import rag_token
from rag_jax.core.decode import beam, rag_sequence
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.trie import Blocks
from rag_jax.models import registry
from rag_jax.types import RagParams


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Seconds of a batch for each decoder, reading included and alone, and the bytes that a step must move."""
    case, held = scale.decode, params(weights, jnp.bfloat16)
    tower_config, config = configs(weights, jnp.bfloat16)
    tower, generator = registry.tower(tower_config), registry.generator(config)
    kinds = {"question": jnp.int32, "passages": jnp.int32, "vectors": jnp.float32}
    given = {name: jnp.asarray(array, kinds[name]) for name, array in case.arrays(scale.networks).items()}
    record(case=vars(case), step_bytes=step_bytes(case, config), decoders=[])
    encode = jax.jit(lambda held, passages: generator.encode(held.generator, full(passages)))
    record(encode=spread(device.timed(partial(encode, held, given["passages"]), scale.rounds)))
    fused = registry.generator(replace(config, attention="fused"))
    told: list[dict[str, Any]] = []
    rows, answers = case.questions * case.docs, case.docs * case.beams
    limits = GenerationLimits((START,), END, case.target)
    beams = partial(beam.search, num_beams=case.beams)
    token = partial(rag_token.decode, search=beams, limits=limits)
    whole, *others = (
        (
            f"thorough, blocks of {blocks.rows} rows, {blocks.answers} answers, {blocks.nodes} nodes",
            partial(rag_sequence.thorough, search=beams, limits=limits, blocks=blocks),
            generator,
        )
        for blocks in (Blocks(rows, answers, 64), Blocks(rows // 4, answers, 64), Blocks())
    )
    decoders = (  # in the order of their worth
        ("token", token, generator),
        whole,
        ("token, fused attention", token, fused),
        ("fast", partial(rag_sequence.fast, search=beams, limits=limits), generator),
        ("greedy", partial(rag_token.decode, search=partial(beam.search, num_beams=1), limits=limits), generator),
        *others,
    )
    for name, decoder, reader in decoders[: scale.variants]:
        told.append({"name": name})
        for found in decoded(answering(tower, reader, decoder), held, given, scale):
            told[-1] |= found
            record(decoders=told)


def decoded(answer: Any, held: RagParams, given: dict[str, jax.Array], scale: Scale) -> Iterator[dict[str, Any]]:
    """One decoder, compiled and timed; then its longest kernels."""
    arrays = [given[name] for name in ("question", "passages", "vectors")]
    try:
        program, took, memory = device.compiled(answer, held, *arrays)
        times = device.timed(partial(program, held, *arrays), scale.rounds)
    except device.FAILURES as error:
        yield {"error": reason(error)}
        return
    told: dict[str, Any] = spread(times) | memory | {"compile": took}
    told["questions/s"] = scale.decode.questions / told["median"]
    tokens, mask, _ = jax.device_get(program(held, *arrays))
    told["answers"] = [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
    yield told
    yield {"kernels": device.longest_kernels(partial(program, held, *arrays))}


def step_bytes(case: Case, config: Any) -> int:
    """What a step of the decoder must read at least: its weights, the vocabulary, keys and values of what was read."""
    width, rows = config.width, case.questions * case.docs
    layer = 6 * width * width + 2 * width * config.ffn_width  # cross keys and values are made before
    inputs = rows * case.inputs * 2 * width
    return 2 * (config.decoder_layers * (layer + inputs) + width * config.vocab_size)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        run(main)
