"""The GPU's kernel, interpreted: its maxima against all scores, and the search that it is the first stage of."""

import warnings
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core import group_maxima as module
from rag_jax.core import retrieval
from rag_jax.core.group_maxima import GROUP_SIZE, MAX_QUERIES, group_maxima, supports
from rag_jax.core.vectors import products, quantize_int8
from suites import first

WIDTH = 64
KINDS = {"bfloat16": jnp.bfloat16, "int8": quantize_int8}


def problem(count: int, queries: int, kind: str):
    """Queries, vectors as they are stored, and which of them hold a passage."""
    draw = np.random.default_rng(count + queries)
    vectors = KINDS[kind](jnp.asarray(draw.standard_normal((count, WIDTH)), jnp.float32))
    asked = jnp.asarray(draw.standard_normal((queries, WIDTH)), jnp.float32)
    return asked, vectors, jnp.asarray(draw.random(count) < 0.7)


def an_h100():
    """Newer versions of JAX compile a kernel for a device, which none is here."""
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("removed", first(1, [True, False]))
def test_the_maxima_are_those_of_each_groups_scores(kind: str, removed: bool) -> None:
    queries, vectors, alive = problem(2 * GROUP_SIZE + 5, 3, kind)
    found = group_maxima(queries, vectors, alive if removed else None, interpret=True)
    scores = np.asarray(products(queries, vectors))
    scores = np.where(np.asarray(alive)[None], scores, -np.inf) if removed else scores
    padded = np.pad(scores, ((0, 0), (0, GROUP_SIZE - 5)), constant_values=-np.inf)
    np.testing.assert_allclose(found, padded.reshape(3, 3, GROUP_SIZE).max(axis=2), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "queries", "k"), first(1, [(3 * GROUP_SIZE + 1, 2, 5), (4, 1, 7), (700, MAX_QUERIES + 3, 3)])
)
def test_the_search_by_maxima_finds_what_walking_finds(kind: str, count: int, queries: int, k: int) -> None:
    asked, vectors, alive = problem(count, queries, kind)
    by_maxima = jax.jit(partial(retrieval._search_groups, k=k, interpret=True))
    for living in (None, alive):
        scores, ids = by_maxima(asked, vectors, living)
        wanted = retrieval.exact_top_k(asked, vectors, k, alive=living, block=100)
        np.testing.assert_array_equal(ids, wanted[1])
        np.testing.assert_allclose(scores, wanted[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("platform", "kernel"), first(2, [("cuda", True), ("cpu", False), ("tpu", False)]))
def test_the_kernel_is_in_the_program_for_nvidia_alone(platform: str, kernel: bool) -> None:
    wikipedia = jax.ShapeDtypeStruct((21_015_324, 768), jnp.bfloat16)
    asked, search = jax.ShapeDtypeStruct((8, 768), jnp.float32), jax.jit(partial(retrieval.exact_top_k, k=10))
    with warnings.catch_warnings(), an_h100() if platform == "cuda" else nullcontext():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of JAX announce the end of this backend
        lowered = search.trace(asked, wikipedia).lower(lowering_platforms=(platform,)).as_text()
    assert ("xla.gpu.triton" in lowered) == kernel
    assert "8x21015324" not in lowered, "no matrix of all scores"


def test_what_the_kernel_cannot_take_is_walked() -> None:
    queries, wide = jnp.zeros((2, 64)), jnp.zeros((9, 64))
    odd = jnp.zeros((2, 60)), jnp.zeros((9, 60), jnp.bfloat16)
    assert not supports(queries, wide), "float32 needs products in full precision"
    assert not supports(*odd), "its tiles do not divide this width"


def test_a_gpu_without_bfloat16_products_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = jnp.zeros((2, 64)), jnp.zeros((9, 64), jnp.bfloat16)
    for is_new in (True, False):
        monkeypatch.setattr(module, "has_bfloat16_products", lambda is_new=is_new: is_new)
        assert supports(*narrow) == (is_new and module._has_compiler())


@pytest.mark.extended
def test_the_search_by_maxima_can_stand_in_a_gradient() -> None:
    asked, vectors, _ = problem(GROUP_SIZE, 2, "bfloat16")
    gradient = jax.grad(lambda queries: retrieval._search_groups(queries, vectors, None, k=3, interpret=True)[0].sum())(
        asked
    )
    best = retrieval.exact_top_k(asked, vectors, 3)[1]
    np.testing.assert_allclose(gradient, np.asarray(vectors, np.float32)[best].sum(axis=1), rtol=1e-5)
