"""Whether the device computes what a CPU does: likelihoods, search, decoders, a training step, attention."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from benchmarks.accelerator.part import Record, reason, run
from benchmarks.accelerator.scale import Scale
from rag_jax import decoding, likelihood, rag_token, retrieval
from rag_jax.core import group_maxima, losses, training
from rag_jax.core.decode import beam, rag_sequence
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.core.vectors import count, products, quantize_int8, take
from rag_jax.models import registry
from rag_jax.models.attention import Attention
from rag_jax.types import Batch, InferenceBatch, Knowledge, Networks, RagParams, Tokens

K, B, T, END = 5, 4, 6, 2
TOWER = registry.TOWERS[registry.DEFAULT_TOWER].config(
    vocab_size=200, width=64, layers=2, heads=4, ffn_width=128, max_positions=32, dropout=0.0, attention_dropout=0.0
)
READER = registry.GENERATORS[registry.DEFAULT_GENERATOR].config(
    vocab_size=200, width=64, encoder_layers=2, decoder_layers=2, heads=4, ffn_width=128, max_positions=64, dropout=0.0
)


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Greatest differences, in what each check names; a check that fails says why and the rest goes on."""
    del weights
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "likelihood": likelihoods,
        "scores": scores,
        "search": partial(search, scale.checked, scale.width),
        "attention": attention,
        "train step": train_step,
        "decoding token": partial(decoded, rag_token.decode),
        "decoding thorough": partial(decoded, rag_sequence.thorough),
        "decoding fast": partial(decoded, rag_sequence.fast),
    }
    told: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            told[name] = check()
        except Exception as error:  # whatever an unknown device does is a result
            told[name] = {"error": reason(error)}
        record(platform=jax.default_backend(), checks=told)


def likelihoods() -> dict[str, Any]:
    """Both likelihoods and their gradients in float32, beside float64 on the host; scores are near 75, as DPR's."""
    draw = np.random.default_rng(0)
    given, logits = 75 + draw.normal(0, 1, (B, K)), draw.normal(0, 3, (B, K, T, 1_000))
    targets = draw.integers(0, 1_000, (B, T))
    prior = given - _log_sum_exp(given, 1, True)
    chosen = np.take_along_axis(logits - _log_sum_exp(logits, 3, True), targets[:, None, :, None], axis=3)[..., 0]
    wanted = {
        "token": _log_sum_exp(prior[:, :, None] + chosen, 1).sum(axis=1),
        "sequence": _log_sum_exp(prior + chosen.sum(axis=2), 1),
    }
    joint = prior + chosen.sum(axis=2)
    slope = np.exp(joint - _log_sum_exp(joint, 1, True)) - np.exp(prior)  # d log p_seq / d scores = posterior - prior

    def found(scores: jax.Array, model: Callable) -> jax.Array:
        log_probs = likelihood.target_log_probs(jnp.float32(logits), jnp.int32(targets))
        return model(likelihood.doc_log_prior(scores), log_probs, jnp.ones((B, T), bool))

    models = {"token": likelihood.rag_token, "sequence": likelihood.rag_sequence}
    told = {
        name: _apart(jax.jit(partial(found, model=each))(jnp.float32(given)), wanted[name])
        for name, each in models.items()
    }
    gradient = jax.jit(jax.grad(lambda scores: found(scores, likelihood.rag_sequence).sum()))(jnp.float32(given))
    return told | {"gradient": _apart(gradient, slope)}


def scores() -> dict[str, Any]:
    """`q . d` near 30, in float32: what the prior is made of. TF32's ten bits would lose the gaps between passages."""
    draw = np.random.default_rng(1)
    queries, vectors = draw.normal(0, 0.6, (B, 768)), draw.normal(0, 0.6, (B, K, 768)) + 0.2
    queries += 0.2
    found = jax.jit(retrieval.scores)(jnp.float32(queries), jnp.float32(vectors))
    return {"absolute": float(np.abs(np.asarray(found) - np.einsum("bd,bkd->bk", queries, vectors)).max())}


def search(passages: int, width: int) -> dict[str, Any]:
    """The ten best of random vectors, beside the host's in float64; and what the search computes of all of them.

    The scores of the ten best are computed again in float32. What chooses them are "products" or, with the kernel, the
    largest of each group. Their error is over the norms of both vectors: in bfloat16 and int8 near 2**-16 with sixteen
    bits of the query, near 2**-9 with eight.
    """
    draw = np.random.default_rng(2)
    vectors = draw.standard_normal((passages, width), dtype=np.float32)
    queries = draw.standard_normal((8, width), dtype=np.float32)
    exact = _best(queries, vectors)
    told = {}
    kinds = {"float32": jnp.asarray, "bfloat16": jnp.bfloat16, "int8": lambda rows: quantize_int8(jnp.asarray(rows))}
    for name, convert in kinds.items():
        stored = convert(vectors)
        found, best = jax.jit(partial(retrieval.exact_top_k, k=10))(queries, stored)
        expected = np.einsum("BKD,BD->BK", np.asarray(take(stored, best), np.float64), queries.astype(np.float64))
        told[f"scores {name}"], ids = _apart(found, expected), np.asarray(best)
        told |= {f"{key} {name}": error for key, error in _product_errors(queries, stored).items()}
        shared = [len(set(a) & set(b)) / 10 for a, b in zip(ids, exact, strict=True)]
        told[f"recall@10 {name}"] = float(np.mean(shared))
        if name == "float32":
            told["same order float32"] = bool((ids == exact).all())
    return told


def decoded(decode: Callable[..., Any]) -> dict[str, Any]:
    """Answers of a decoder on the device and on the CPU, in float32 at full precision: the same tokens."""
    networks, params, knowledge, batch = _world()
    decoder = partial(
        decode, search=partial(beam.search, num_beams=4), limits=GenerationLimits((END,), END, T), n_best=2
    )
    program = partial(decoding.answer, networks, decoder=decoder, num_docs=K, layout=InputLayout(32))
    asked = InferenceBatch(batch.question, batch.prompt)
    here, there = _both(program, params, knowledge, asked, decoding.no_prefix(B))
    same = np.array_equal(here.decoded.tokens, there.decoded.tokens)
    return {"same tokens": same, "log_prob": _apart(here.decoded.log_prob, there.decoded.log_prob)}


def train_step() -> dict[str, Any]:
    """One step of both objectives on the device and on the CPU: loss, gradient norm, and what it adds to parameters."""
    networks, params, knowledge, batch = _world()
    start = jax.device_get(params)
    positives = jnp.full((B, 1), -1, jnp.int32)
    told = {}
    for name, objective in {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}.items():
        recipe = training.Recipe(networks, objective, optax.sgd(1.0), K, InputLayout(32))
        state = training.init(recipe, params, jax.random.key(0))
        here, there = _both(partial(training.train_step, recipe), state, knowledge, batch, positives)
        moved = [jax.tree.map(np.subtract, each[0].params, start) for each in (here, there)]
        told[name] = {
            "loss": _apart(here[1].loss, there[1].loss),
            "grad_norm": _apart(here[1].grad_norm, there[1].grad_norm),
            "update": _relative(*map(_flat, moved)),
        }
    return told


def attention() -> dict[str, Any]:
    """The fused kernel in bfloat16 beside plain attention in float32: outputs and gradients, as relative norms."""
    plain = Attention(256, 4, 0.0, 0.02)
    states = jax.random.normal(jax.random.key(0), (8, 128, 256))
    lengths = jnp.arange(1, 9) * 16
    mask = (jnp.arange(128)[None, :] < lengths[:, None])[:, None, :]

    def attend(module: Attention, params: PyTree, states: jax.Array) -> jax.Array:
        def both(module: Attention) -> jax.Array:
            return module(states, *module.project(states), mask, True)

        mixed: Any = module.apply(params, method=both)
        return mixed.astype(jnp.float32) * mask.swapaxes(1, 2)

    def all_at_once(module: Attention) -> jax.Array:
        return module(states, *module.project(states), mask, True)

    params: Any = plain.init(jax.random.key(1), method=all_at_once)
    told = {}
    with jax.default_matmul_precision("highest"):
        wanted = jax.jit(jax.value_and_grad(lambda p, s: jnp.sum(jnp.sin(attend(plain, p, s)))))(params, states)
    for name, fused in (("plain bfloat16", False), ("fused bfloat16", True)):
        module = replace(plain, dtype=jnp.bfloat16, fused=fused)
        objective = jax.jit(jax.value_and_grad(lambda p, s, module=module: jnp.sum(jnp.sin(attend(module, p, s)))))
        found = objective(params, states.astype(jnp.bfloat16))
        pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(wanted[1]), strict=True)
        apart = [_relative(a, b) for a, b in pairs if float(jnp.linalg.norm(b)) > 1e-3]
        told[name] = {"value": _relative(found[0], wanted[0]), "gradient": max(apart)}
    return told


def _world() -> tuple[Networks, RagParams, Knowledge, Batch]:
    """Small networks with random weights, large enough that answers differ, an index, and questions."""
    keys = iter(jax.random.split(jax.random.key(3), 8))
    params = RagParams(
        registry.tower_of(TOWER).init(TOWER, next(keys)), registry.generator_of(READER).init(READER, next(keys))
    )
    params = jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 1 else leaf, params)

    def tokens(*shape: int) -> Tokens:
        full = jnp.full(shape[:-1], shape[-1], jnp.int32)
        return Tokens(jax.random.randint(next(keys), shape, 4, 200, jnp.int32), full)

    knowledge = Knowledge(jax.random.normal(next(keys), (300, TOWER.width)), tokens(300, 16))
    question, prompt, targets = tokens(B, 8), tokens(B, 8), tokens(B, T)
    inputs = jnp.pad(targets.ids[:, :-1], ((0, 0), (1, 0)), constant_values=0)
    batch = Batch(question, prompt, inputs, targets.ids, jnp.ones((B, T), bool))
    return Networks(registry.tower(TOWER), registry.generator(READER)), params, knowledge, batch


def _both(program: Callable, *arguments: Any) -> tuple[Any, Any]:
    """What a program gives on the default device and on the CPU, both in full float32."""
    results = []
    for where in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(where), jax.default_matmul_precision("highest"):
            moved = jax.device_put(arguments, where)
            results.append(jax.device_get(jax.jit(program)(*moved)))
    return results[0], results[1]


def _product_errors(queries: np.ndarray, stored: Any) -> dict[str, float]:
    """The largest error of the products that a search chooses by, over the norms of both vectors."""
    rows = np.asarray(take(stored, jnp.arange(count(stored))), np.float64)
    exact = queries.astype(np.float64) @ rows.T
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1).max()
    told = {"products": float((np.abs(np.asarray(jax.jit(products)(queries, stored)) - exact) / norms).max())}
    if group_maxima.supports(jnp.asarray(queries), stored):
        kernel = partial(group_maxima.group_maxima, interpret=jax.default_backend() == "cpu")
        maxima = np.asarray(jax.jit(kernel)(queries, stored))
        starts = np.arange(0, exact.shape[1], group_maxima.GROUP_SIZE)
        told["kernel"] = float((np.abs(maxima - np.maximum.reduceat(exact, starts, axis=1)) / norms).max())
    return told


def _best(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The ids of the ten best, in float64."""
    found = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return np.argsort(-found, axis=1, kind="stable")[:, :10]


def _log_sum_exp(values: np.ndarray, axis: int, keepdims: bool = False) -> np.ndarray:
    peak = values.max(axis=axis, keepdims=True)
    found = peak + np.log(np.exp(values - peak).sum(axis=axis, keepdims=True))
    return found if keepdims else found.squeeze(axis)


def _apart(found: Any, wanted: Any) -> float:
    """The greatest difference over the greatest magnitude."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    there = np.isfinite(wanted)
    if not np.array_equal(there, np.isfinite(found)):
        return float("nan")
    return float(np.abs(found - wanted)[there].max() / max(np.abs(wanted[there]).max(), 1e-30))


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _relative(found: Any, wanted: Any) -> float:
    """The norm of the difference over the norm."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


if __name__ == "__main__":
    run(main)
