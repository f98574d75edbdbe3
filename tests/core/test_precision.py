"""Programs as they are lowered for each platform: the float32 products of the prior are asked for in full precision.

Otherwise a GPU rounds their factors to ten bits and a TPU to eight. No such device is needed to read the program.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import handmade
from handmade import D, K, V
from rag_jax.core import likelihood, retrieval, training
from rag_jax.core.decode import beam, decoding, rag_token
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.core.sharding import sharded
from rag_jax.core.vectors import quantize_int8
from rag_jax.types import Generator, InferenceBatch, Networks, RagParams, Tokens
from suites import only

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")
OPERANDS = re.compile(r": \((.*)\) -> ")
SHARDED = sharded(Mesh(np.asarray(jax.devices()[:2]), ("index",)), "index")
platforms = pytest.mark.parametrize("platform", only(["cuda"], ["cpu", "cuda", "rocm", "tpu"]))


def products(function, platform: str, *arguments) -> tuple[list[str], list[str]]:
    """The float32 products in the program of a platform, those in full precision and those that are rounded."""
    program = jax.export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()
    lines = [line for line in PRODUCT.findall(program) if "xf32>" in OPERANDS.search(line).group(1)]
    full = [line for line in lines if "precision = [HIGHEST, HIGHEST]" in line]
    return full, [line for line in lines if line not in full]


def queries() -> jax.Array:
    return jnp.asarray(handmade.normal(np.random.default_rng(5), handmade.B, D))


@platforms
def test_scores_and_their_gradient(platform: str):
    vectors = jnp.asarray(handmade.normal(np.random.default_rng(6), handmade.B, K, D))
    full, rounded = products(retrieval.scores, platform, queries(), vectors)
    assert (len(full), rounded) == (1, [])

    def prior(queries):
        return jnp.sum(likelihood.doc_log_prior(retrieval.scores(queries, vectors))[:, 0])

    full, rounded = products(jax.value_and_grad(prior), platform, queries())
    assert (len(full), rounded) == (2, [])  # forwards and backwards


@platforms
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("block", [None, 4])
def test_the_search(platform: str, kind: str, block: int | None):
    vectors = jnp.asarray(handmade.knowledge().passage_vectors)
    stored = quantize_int8(vectors) if kind == "int8" else vectors.astype(kind)
    full, rounded = products(partial(retrieval.exact_top_k, k=K, block=block), platform, queries(), stored)
    halves = kind != "float32" and platform != "cpu"  # bfloat16 twice, exact as it is
    assert (bool(full), rounded) == (not halves, [])


def words_without_products() -> training.Recipe:
    """Networks that multiply no matrices, so that whatever products a program holds are of its prior."""

    def tower(embedding, tokens, key=None):
        return jnp.sum(embedding[tokens.ids], axis=1)

    def follow(params, decoder_inputs, memory, cache=None, place=None, key=None):
        return memory[:, None, :] + params[decoder_inputs], cache

    generator = Generator(tower, follow, lambda params, states: states, lambda rows, slots: jnp.zeros((rows, slots)))
    return handmade.recipe(tower=tower)._replace(networks=Networks(tower, generator))


def params() -> RagParams:
    draw = np.random.default_rng(7)
    return RagParams(handmade.normal(draw, V, D), handmade.normal(draw, V, V))


@platforms
@pytest.mark.parametrize("index", [retrieval.LOCAL, SHARDED], ids=["local", "sharded"])
def test_a_training_step(platform: str, index: retrieval.Index):
    recipe = words_without_products()._replace(lookup=index)
    state = training.init(recipe, params(), jax.random.key(3))
    given = handmade.knowledge(), handmade.batch(), handmade.NO_GOLD
    full, rounded = products(partial(training.train_step, recipe), platform, state, *given)
    assert (len(full) >= 3, rounded) == (True, [])  # the search, the scores, their gradient


@platforms
def test_an_answer(platform: str):
    networks, batch, known = words_without_products().networks, handmade.batch(), handmade.knowledge()
    limits, nothing = (
        GenerationLimits((0,), 1, 3),
        Tokens(np.zeros((handmade.B, 0), np.int32), np.zeros(handmade.B, np.int32)),
    )
    decoder = partial(rag_token.decode, search=partial(beam.search, num_beams=2), limits=limits)
    answer = partial(decoding.answer, networks, decoder=decoder, num_docs=K, layout=InputLayout(8))
    full, rounded = products(answer, platform, params(), known, InferenceBatch(batch.question, batch.prompt), nothing)
    assert (len(full), rounded) == (2, [])  # the search, the scores


def test_a_rounded_product_is_noticed():
    full, rounded = products(lambda queries: queries @ queries.T, "cuda", queries())
    assert (full, len(rounded)) == ([], 1)
