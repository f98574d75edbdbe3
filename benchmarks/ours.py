"""This library, as a process of its own that answers requests on its standard input."""

import sys
import time
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import END, GENERATOR, START, TOWER, Case, Sizes
from benchmarks.conversation import serve
from rag_jax import hub, likelihood, retrieval
from rag_jax.core.decode import beam
from rag_jax.core.decode.decoded import Decoder
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.variants import VARIANTS
from rag_jax.models import precision, registry
from rag_jax.types import Generator, RagParams, Tokens, Tower

DECODERS = {"token": VARIANTS["token"].decoders["thorough"], **VARIANTS["sequence"].decoders}


def main(folder: Path, sizes: Sizes) -> None:
    """Load the weights, then decode what is asked for."""
    dtype = jnp.dtype(sizes.dtype)
    tower, generator, params = load(folder, dtype)
    tower = precision.tower(tower, sizes.matmul_precision)
    generator = precision.generator(generator, sizes.matmul_precision)

    def decode(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        case = Case(**request["case"])
        kinds = {"question": jnp.int32, "passages": jnp.int32, "vectors": dtype}
        given = {name: jnp.asarray(array, kinds[name]) for name, array in inputs.items()}
        tokens, mask, log_probs = jax.device_get(program(tower, generator, case)(params, **given))
        answers = [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]
        return {"answers": answers, "log_probs": log_probs.tolist()}

    serve(decode, matrix_product)


def load(folder: Path, dtype) -> tuple[Tower, Generator, RagParams]:
    """The networks without dropout, and their parameters, of which no second copy is kept."""
    tower, generator = hub.load_tower(folder / TOWER), hub.load_generator(folder / GENERATOR)
    params = jax.tree.map(lambda each: jnp.asarray(each, dtype), RagParams(tower.params, generator.params))
    sizes = plain(tower.config, dtype), plain(generator.config, dtype)
    return registry.tower(sizes[0]), registry.generator(sizes[1]), params


@lru_cache
def program(tower: Tower, generator: Generator, case: Case):
    """One compiled program: questions and their passages in, answers out."""
    limits = GenerationLimits((START,), END, case.target)
    decoder = partial(DECODERS[case.decoder], search=partial(beam.search, num_beams=case.beams), limits=limits)
    return answering(tower, generator, decoder)


def answering(tower: Tower, generator: Generator, decoder: Decoder):
    """`program` with any decoder."""

    def run(params: RagParams, question, passages, vectors):
        queries = tower(params.question_tower, full(question))
        prior = likelihood.doc_log_prior(retrieval.scores(queries, vectors))
        memory = generator.encode(params.generator, full(passages))
        nothing = Tokens(jnp.zeros((len(question), 0), jnp.int32), jnp.zeros(len(question), jnp.int32))
        found = decoder(EncodedInputs(generator, params.generator, memory), prior, nothing)
        return found.tokens[:, 0], found.mask[:, 0], found.log_prob[:, 0]

    return jax.jit(run)


def matrix_product() -> float:
    """Floating-point operations per second of a large matrix product: what the floors are measured by."""
    a, b = jnp.ones((2560, 768)), jnp.ones((768, 3072))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    began = time.perf_counter()
    for _ in range(5):
        product(a, b).block_until_ready()
    return 5 * 2 * 2560 * 768 * 3072 / (time.perf_counter() - began)


def full(ids: jax.Array) -> Tokens:
    """Rows without padding."""
    return Tokens(ids, jnp.full(ids.shape[0], ids.shape[1], jnp.int32))


def plain(config: Any, dtype: Any) -> Any:
    """A network's sizes, without dropout."""
    rates = {name: 0.0 for name in vars(config) if name.endswith("dropout")}
    return replace(config, dtype=dtype, **rates)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Sizes.parse(sys.argv[2]))
