"""One step of training: retrieve, read, marginalise, update.

The whole step is one pure function from state to state. Question tower and generator learn from the marginal
likelihood; the passage tower is frozen in the index's vectors (Lewis et al. 2020, section 2.4).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from rag_jax.core import collapse, likelihood, packing, reading, retrieval
from rag_jax.core.collapse import Collapse
from rag_jax.core.dropout import split
from rag_jax.core.losses import Objective
from rag_jax.core.modes import Retrieve, retrieve_nearest
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import (
    Batch,
    DropoutKey,
    Knowledge,
    Networks,
    PackedInputs,
    Params,
    RagParams,
    Retrieved,
    SearchResults,
    Tokens,
)


class TrainState(NamedTuple):
    """Everything that a step changes. `key` stays: each step draws its own from it by the step's number."""

    step: Int[Array, ""]
    params: RagParams
    opt_state: PyTree[Array]
    key: Key[Array, ""]
    skipped: Int[Array, ""]  # steps whose loss, gradient or update was not finite: they changed nothing else
    skipped_in_a_row: Int[Array, ""]


class Metrics(NamedTuple):
    """What a step tells about itself, as scalars on the device."""

    loss: Float[Array, ""]  # nats per target token
    grad_norm: Float[Array, ""]  # before clipping
    recall: Float[Array, ""]  # questions one of whose gold passages is among the K; NaN if none has any
    input_tokens: Float[Array, ""]  # of an input that the generator read, mean, without padding
    collapse: Collapse  # whether retrieval still tells questions apart
    skipped: Int[Array, ""]  # steps so far whose loss, gradient or update was not finite
    skipped_in_a_row: Int[Array, ""]  # this one included


class RetrievalStats(NamedTuple):
    """What of a forward pass the metrics are made of."""

    rows: Int[Array, "B K"]
    doc_log_prior: Float[Array, "B K"]
    posterior: Float[Array, "B K"]  # given the whole target
    lengths: Int[Array, "B K"]  # of the inputs


class Forward(NamedTuple):
    """One pass from questions to logits."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    logits: Float[Array, "B K T V"]


class Recipe(NamedTuple):
    """The parts that a step is made of.

    With more than one of `parts` a batch is computed in as many, one after the other: in the memory of one of them, and
    with the gradient of the whole. Inputs are packed into `lines` that hold the first of `lengths` for each input, on
    average, which is enough: which passages are read is known inside the program only, so that each length is compiled,
    and one of them runs. Dropout is drawn otherwise; nothing else is different.
    """

    networks: Networks
    objective: Objective
    optimizer: optax.GradientTransformation
    num_docs: int  # K
    max_length: int  # S at most
    retrieve: Retrieve = retrieve_nearest
    lookup: Index = LOCAL
    num_microbatches: int = 1
    pack_lengths: tuple[int, ...] = ()  # tokens, ascending, below `max_length`
    num_packs: int = 1  # the devices that a batch is spread over


def init(recipe: Recipe, params: RagParams, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # a state that is donated shares no buffer
    return TrainState(step, params, recipe.optimizer.init(params), key, skipped, in_a_row)


def forward(
    recipe: Recipe,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    key: DropoutKey = None,
    positives: Int[Array, "B G"] | None = None,
    search_results: SearchResults | None = None,
) -> Forward:
    """Retrieve K passages for each question and read the target under each of them.

    What a search outside the program `found` is read instead of what this one would retrieve.
    """
    tower_key, generator_key = split(key)
    given = knowledge, batch, positives, search_results
    prior, (retrieved, passages) = _ask(recipe, params.question_tower, *given, tower_key)
    inputs = reading.assemble(passages, batch.prompt, recipe.max_length)
    logits = reading.read(recipe.networks.generator, params.generator, inputs, batch.decoder_inputs, generator_key)
    return Forward(retrieved, prior, logits)


def _ask(
    recipe: Recipe,
    tower: Params,
    knowledge: Knowledge,
    batch: Batch,
    positives: Int[Array, "B G"] | None,
    found: SearchResults | None,
    key: DropoutKey,
) -> tuple[Float[Array, "B K"], tuple[Retrieved, Tokens]]:
    """From questions to `log p(z|x)`, and the passages that it is of."""
    queries = recipe.networks.tower(tower, batch.question, key)
    if found is None:
        rows = recipe.retrieve(recipe.lookup, queries, knowledge, recipe.num_docs, positives)
        retrieved, passages = recipe.lookup.gather(queries, knowledge, rows)
    else:
        retrieved, passages = retrieval.gather_results(queries, knowledge, found, recipe.lookup)
    return likelihood.doc_log_prior(retrieved.scores, retrieved.valid), (retrieved, passages)


def train_step(
    recipe: Recipe,
    state: TrainState,
    knowledge: Knowledge,
    batch: Batch,
    positives: Int[Array, "B G"],
    search_results: SearchResults | None = None,
) -> tuple[TrainState, Metrics]:
    """Minimise the objective on one batch. `positives` are gold rows, padded with -1; see `forward` for `found`.

    Where the loss, the gradient, the update or what it makes of the parameters is not finite, or too large for its norm
    to be, parameters and moments stay as they are.
    """
    key = jax.random.fold_in(state.key, state.step)
    loss, seen, gradient = _gradient(recipe, state.params, knowledge, (batch, positives, search_results), key)
    norm = optax.tree.norm(gradient)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax promotes implicitly
        updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)

    sizes = jnp.stack([loss, norm, optax.tree.norm(params)])  # an update that is not finite leaves no finite parameter
    finite = jnp.all(jnp.isfinite(sizes))
    after, before = (params, opt_state), (state.params, state.opt_state)
    params, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    skipped = state.skipped + jnp.where(finite, 0, 1)
    in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
    metrics = Metrics(
        loss=loss / jnp.mean(jnp.sum(batch.target_mask, axis=1).astype(jnp.float32)),
        grad_norm=norm,
        recall=recall(seen.rows, positives),
        input_tokens=jnp.mean(seen.lengths.astype(jnp.float32), where=seen.rows >= 0),
        collapse=collapse.collapse(seen.rows, seen.doc_log_prior, seen.posterior),
        skipped=skipped,
        skipped_in_a_row=in_a_row,
    )
    return TrainState(state.step + 1, params, opt_state, state.key, skipped, in_a_row), metrics


def _gradient(
    recipe: Recipe, params: RagParams, knowledge: Knowledge, given: PyTree[Array], key: Key[Array, ""]
) -> tuple[Float[Array, ""], RetrievalStats, RagParams]:
    """The mean loss over a batch, what was seen, and the gradient, computed in `recipe.parts`."""
    differentiate = partial(_part_gradient, recipe, params, knowledge)
    if recipe.num_microbatches == 1:
        return differentiate(given, key)

    def one(total: PyTree[Array], numbered: PyTree[Array]) -> tuple[PyTree[Array], RetrievalStats]:
        number, part = numbered
        loss, seen, gradient = differentiate(part, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, (loss, gradient)), seen

    none = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    numbered = (
        jnp.arange(recipe.num_microbatches),
        jax.tree.map(lambda each: _dealt(each, recipe.num_microbatches), given),
    )
    (loss, gradient), seen = jax.lax.scan(one, none, numbered)
    mean = jax.tree.map(lambda total: total / recipe.num_microbatches, (loss, gradient))
    return mean[0], jax.tree.map(_gathered, seen), mean[1]


def _part_gradient(
    recipe: Recipe, params: RagParams, knowledge: Knowledge, given: PyTree[Array], key: Key[Array, ""]
) -> tuple[Float[Array, ""], RetrievalStats, RagParams]:
    """Of one part, in two stages: what is read, and so how long it is, is known when the tower has asked.

    The choice of a length stands around the reader's gradient, not in it: what a backward pass keeps is that of one.
    """
    batch, positives, found = given
    tower_key, generator_key = split(key)

    def ask(tower: Params):
        return _ask(recipe, tower, knowledge, batch, positives, found, tower_key)

    prior, tower_gradient, (retrieved, passages) = jax.vjp(ask, params.question_tower, has_aux=True)

    def objective(
        generator: Params, prior: Float[Array, "B K"], inputs: Tokens | PackedInputs
    ) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
        logits = reading.read(recipe.networks.generator, generator, inputs, batch.decoder_inputs, generator_key)
        losses = recipe.objective(prior, logits, batch.targets, batch.target_mask)
        told = likelihood.target_log_probs(logits, batch.targets)
        return jnp.mean(losses), likelihood.sequence_doc_posterior(prior, told, batch.target_mask)

    inputs = reading.assemble(passages, batch.prompt, recipe.max_length)
    forms, chosen = _forms(recipe, inputs)
    read = [partial(jax.value_and_grad(objective, (0, 1), has_aux=True), inputs=form) for form in forms]
    told = jax.lax.switch(chosen, read, params.generator, prior)
    (loss, posterior), (generator_gradient, prior_gradient) = told
    gradient = RagParams(tower_gradient(prior_gradient)[0], generator_gradient)
    return loss, RetrievalStats(retrieved.rows, prior, posterior, inputs.lengths), gradient


def _forms(recipe: Recipe, inputs: Tokens) -> tuple[list[Tokens | PackedInputs], Int[Array, ""]]:
    """The forms that inputs `[B, K, S]` may be read in, shortest first, padded the last, and which one to choose."""
    by_row = reading.rows(inputs)
    held = by_row.lengths.shape[0] // recipe.num_packs
    sizes = [held * length for length in recipe.pack_lengths if length < inputs.ids.shape[2]]
    most = jnp.max(jnp.sum(by_row.lengths.reshape(recipe.num_packs, held), axis=1))
    chosen = jnp.sum(most > jnp.asarray(sizes, most.dtype))
    return [*(packing.pack(by_row, recipe.num_packs, size) for size in sizes), inputs], chosen


def _dealt(each: Array, parts: int) -> Array:
    """`[B, ...]` as `[parts, B / parts, ...]`, in turns: every device of a mesh has as much of each part."""
    return jnp.swapaxes(each.reshape(-1, parts, *each.shape[1:]), 0, 1)


def _gathered(dealt: Array) -> Array:
    return jnp.swapaxes(dealt, 0, 1).reshape(-1, *dealt.shape[2:])


def eval_step(
    recipe: Recipe, params: RagParams, knowledge: Knowledge, batch: Batch, search_results: SearchResults | None = None
) -> Float[Array, " B"]:
    """`log p(y|x)` of each target, without dropout or smoothing where the objective has none."""
    seen = forward(recipe, params, knowledge, batch, search_results=search_results)
    return -recipe.objective(seen.doc_log_prior, seen.logits, batch.targets, batch.target_mask)


def recall(ids: Int[Array, "B K"], positives: Int[Array, "B G"]) -> Float[Array, ""]:
    """The share of questions with a gold passage among those retrieved, over the questions that have one."""
    has_gold = jnp.any(positives >= 0, axis=1)
    same = (ids[:, :, None] == positives[:, None, :]) & (positives >= 0)[:, None, :]
    hits = jnp.sum(jnp.any(same, axis=(1, 2)).astype(jnp.float32))
    return hits / jnp.sum(has_gold.astype(jnp.float32))
