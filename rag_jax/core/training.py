"""One step of training: retrieve, read, marginalise, update.

The whole step is one pure function from state to state. Question tower and generator learn from the marginal
likelihood; the passage tower is frozen in the index's vectors (Lewis et al. 2020, section 2.4).
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from rag_jax.core import likelihood, reading, retrieval
from rag_jax.core.dropout import split
from rag_jax.core.losses import Objective
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import Batch, DropoutKey, Found, Knowledge, Networks, Params, RagParams, Retrieved, Tokens, Tower


class TrainState(NamedTuple):
    """Everything that a step changes. `key` stays: each step draws its own from it by the step's number."""

    step: Int[Array, ""]
    params: RagParams
    opt_state: PyTree[Array]
    key: Key[Array, ""]


class Metrics(NamedTuple):
    """What a step tells about itself, as scalars on the device."""

    loss: Float[Array, ""]  # nats per target token
    grad_norm: Float[Array, ""]  # before clipping
    recall: Float[Array, ""]  # questions one of whose gold passages is among the K; NaN if none has any
    prior_entropy: Float[Array, ""]  # nats; near zero: one passage takes all


class Forward(NamedTuple):
    """One pass from questions to logits."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    logits: Float[Array, "B K T V"]


@runtime_checkable
class Search(Protocol):
    """Which passages a question reads: rows of the index, -1 for none."""

    def __call__(
        self,
        index: Index,
        queries: Float[Array, "B D"],
        knowledge: Knowledge,
        num_docs: int,
        positives: Int[Array, "B G"] | None,
    ) -> Int[Array, "B K"]: ...


def nearest(
    index: Index,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    num_docs: int,
    positives: Int[Array, "B G"] | None = None,
) -> Int[Array, "B K"]:
    """The K passages of the largest inner product: the paper's retrieval."""
    del positives
    return index.nearest(queries, knowledge, num_docs).rows


def gold(
    index: Index,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    num_docs: int,
    positives: Int[Array, "B G"] | None,
) -> Int[Array, "B K"]:
    """The first K gold passages, for a generator that is to learn reading before retrieval is any good."""
    del index, queries, knowledge
    if positives is None:
        raise ValueError("gold passages are known in training only")
    missing = ((0, 0), (0, max(0, num_docs - positives.shape[1])))
    return jnp.pad(positives, missing, constant_values=-1)[:, :num_docs]


class Recipe(NamedTuple):
    """The parts that a step is made of."""

    networks: Networks
    objective: Objective
    optimizer: optax.GradientTransformation
    num_docs: int  # K
    max_length: int  # S at most
    search: Search = nearest
    lookup: Index = LOCAL


def init(recipe: Recipe, params: RagParams, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, recipe.optimizer.init(params), key)


def forward(
    recipe: Recipe,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    key: DropoutKey = None,
    positives: Int[Array, "B G"] | None = None,
    found: Found | None = None,
) -> Forward:
    """Retrieve K passages for each question and read the target under each of them.

    What a search outside the program `found` is read instead of what this one would retrieve.
    """
    tower_key, generator_key = split(key)
    queries = recipe.networks.tower(params.question_tower, batch.question, tower_key)
    if found is None:
        rows = recipe.search(recipe.lookup, queries, knowledge, recipe.num_docs, positives)
        retrieved, passages = recipe.lookup.gather(queries, knowledge, rows)
    else:
        retrieved, passages = retrieval.gather_found(queries, knowledge, found, recipe.lookup)
    inputs = reading.assemble(passages, batch.prompt, recipe.max_length)
    logits = reading.read(recipe.networks.generator, params.generator, inputs, batch.decoder_inputs, generator_key)
    return Forward(retrieved, likelihood.doc_log_prior(retrieved.scores, retrieved.valid), logits)


def train_step(
    recipe: Recipe,
    state: TrainState,
    knowledge: Knowledge,
    batch: Batch,
    positives: Int[Array, "B G"],
    found: Found | None = None,
) -> tuple[TrainState, Metrics]:
    """Minimise the objective on one batch. `positives` are gold rows, padded with -1; see `forward` for `found`."""

    def objective(params: RagParams) -> tuple[Float[Array, ""], Forward]:
        seen = forward(recipe, params, knowledge, batch, jax.random.fold_in(state.key, state.step), positives, found)
        losses = recipe.objective(seen.doc_log_prior, seen.logits, batch.targets, batch.target_mask)
        return jnp.mean(losses), seen

    (loss, seen), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax promotes implicitly
        updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    metrics = Metrics(
        loss=loss / jnp.mean(jnp.sum(batch.target_mask, axis=1).astype(jnp.float32)),
        grad_norm=optax.tree.norm(gradient),
        recall=recall(seen.retrieved.ids, positives),
        prior_entropy=jnp.mean(entropy(seen.doc_log_prior)),
    )
    return TrainState(state.step + 1, params, opt_state, state.key), metrics


def eval_step(
    recipe: Recipe, params: RagParams, knowledge: Knowledge, batch: Batch, found: Found | None = None
) -> Float[Array, "B"]:
    """`log p(y|x)` of each target, without dropout or smoothing where the objective has none."""
    seen = forward(recipe, params, knowledge, batch, found=found)
    return -recipe.objective(seen.doc_log_prior, seen.logits, batch.targets, batch.target_mask)


def frozen(tower: Tower) -> Tower:
    """The tower as a constant: no dropout, no gradient, no backward pass (the paper's frozen-retriever ablation)."""

    def constant(params: Params, tokens: Tokens, key: DropoutKey = None) -> Float[Array, "B D"]:
        del key
        return tower(jax.lax.stop_gradient(params), tokens, None)

    return constant


def absent(tower: Tower) -> Tower:
    """No opinion on the passages: zero vectors, a uniform prior, and no work for the tower."""

    def zeros(params: Params, tokens: Tokens, key: DropoutKey = None) -> Float[Array, "B D"]:
        return jnp.zeros_like(tower(params, tokens, key))  # the compiler drops what only gave the shape

    return zeros


def recall(ids: Int[Array, "B K"], positives: Int[Array, "B G"]) -> Float[Array, ""]:
    """The share of questions with a gold passage among those retrieved, over the questions that have one."""
    has_gold = jnp.any(positives >= 0, axis=1)
    same = (ids[:, :, None] == positives[:, None, :]) & (positives >= 0)[:, None, :]
    hits = jnp.sum(jnp.any(same, axis=(1, 2)).astype(jnp.float32))
    return hits / jnp.sum(has_gold.astype(jnp.float32))


def entropy(log_probs: Float[Array, "B K"]) -> Float[Array, "B"]:
    """In nats; passages of probability zero contribute nothing."""
    terms = jnp.exp(log_probs) * jnp.where(jnp.isneginf(log_probs), 0.0, log_probs)
    return -jnp.sum(terms, axis=1)
