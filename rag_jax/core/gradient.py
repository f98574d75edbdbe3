"""The loss of one microbatch and its gradient: retrieve, read, marginalise.

The backward pass has two stages. How long the generator's inputs are is known only after retrieval, so the program
chooses among compiled lengths at that point. The choice encloses the generator's forward and backward pass together:
residuals are then kept for the chosen length alone, not for every length.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from rag_jax.core import attention, likelihood, packing, reading, refresh, retrieval
from rag_jax.core.distillation import ReaderSignals
from rag_jax.core.dropout import split
from rag_jax.core.recipe import Recipe
from rag_jax.core.step_metrics import RetrievalStats
from rag_jax.core.trainable import combine, partition
from rag_jax.types import (
    Batch,
    DropoutKey,
    Generator,
    Knowledge,
    PackedInputs,
    Params,
    RagParams,
    Retrieved,
    SearchResults,
    Tokens,
)

PASSAGES = 1_000_003  # the passage tower's dropout, a random stream apart from the question tower's


class TrainingBatch(NamedTuple):
    """Questions with targets, and what is known about their passages."""

    batch: Batch
    positives: Int[Array, "B G"]  # gold rows, padded with -1
    search_results: SearchResults | None  # of a search outside the program; None: the step searches


class LossAndGradient(NamedTuple):
    """The mean loss over the questions, its gradient, and statistics of the retrieval."""

    loss: Float[Array, ""]
    gradient: RagParams  # of the trained parameters
    stats: RetrievalStats


def loss_and_gradient(
    recipe: Recipe, params: RagParams, knowledge: Knowledge, inputs: TrainingBatch, key: Key[Array, ""]
) -> LossAndGradient:
    """One microbatch, forwards and backwards.

    Raises `ValueError` for a distillation where several passages are read in one input: there is no signal of each.
    """
    distils = recipe.distillation is not None
    if distils and recipe.layout.passages_per_input > 1:
        raise ValueError("a distillation needs passages that are read one by one, or fused")
    batch, (trained, frozen) = inputs.batch, partition(params, recipe.trainable)
    tower_key, generator_key = split(key)
    search_results = inputs.search_results
    if search_results is None:
        search_results = _search(recipe, params, knowledge, inputs)

    def retrieve(towers: RagParams) -> tuple[Float[Array, "B K"], tuple[Retrieved, Tokens]]:
        """The prior over the passages that are read; these, with their tokens."""
        towers = combine(towers, frozen._replace(generator=None))
        queries = recipe.networks.tower(towers.question_tower, batch.question, tower_key)
        retrieved, passages = _gather(recipe, towers.passage_tower, queries, knowledge, search_results, tower_key)
        doc_log_prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
        if recipe.prior_docs is None:
            return doc_log_prior, (retrieved, passages)
        return _best(recipe.num_docs, doc_log_prior, retrieved, passages)

    def read_and_marginalise(
        generator: Params, doc_log_prior: Float[Array, "B K"], generator_inputs: Tokens | PackedInputs
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "B K"], Float[Array, " B"] | None]]:
        """The mean loss; the posterior, and the loss of the distillation, of each question."""
        weights = combine(generator, frozen.generator)
        known = jax.lax.stop_gradient(doc_log_prior) if distils else doc_log_prior
        logits, signals = _read(recipe, weights, generator_inputs, batch, generator_key, known)
        read_log_prior = reading.group_log_prior(known, recipe.layout)
        losses, distilled = recipe.objective(read_log_prior, logits, batch.targets, batch.target_mask), None
        if recipe.distillation is not None and signals is not None:
            distilled = recipe.distillation(doc_log_prior, signals)
            losses += recipe.distillation_weight * distilled
        if not recipe.layout.has_posterior:
            return jnp.mean(losses), (jnp.full_like(doc_log_prior, jnp.nan), distilled)
        target_log_probs = likelihood.target_log_probs(logits, batch.targets)
        posterior = likelihood.sequence_doc_posterior(doc_log_prior, target_log_probs, batch.target_mask)
        return jnp.mean(losses), (posterior, distilled)

    towers = trained._replace(generator=None)
    doc_log_prior, retrieve_vjp, (retrieved, passages) = jax.vjp(retrieve, towers, has_aux=True)
    generator_inputs = reading.assemble(passages, batch.prompt, recipe.layout)
    lengths, shortest = packing.pack_at_lengths(generator_inputs, recipe.layout.num_packs, recipe.layout.pack_lengths)
    differentiate = jax.value_and_grad(read_and_marginalise, argnums=(0, 1), has_aux=True)
    branches = [partial(differentiate, generator_inputs=each) for each in lengths]
    (loss, (posterior, distilled)), (generator_gradient, prior_gradient) = jax.lax.switch(
        shortest, branches, trained.generator, doc_log_prior
    )
    (tower_gradient,) = retrieve_vjp(prior_gradient)
    exists = ~jnp.isneginf(reading.group_log_prior(doc_log_prior, recipe.layout._replace(fuses=False)))
    input_lengths = jnp.where(exists, generator_inputs.lengths, 0)
    if recipe.prior_docs is not None:  # metrics are of the passages that are read
        doc_log_prior = likelihood.doc_log_prior(doc_log_prior)
    stats = RetrievalStats(retrieved.rows, doc_log_prior, posterior, input_lengths, distilled)
    return LossAndGradient(loss, tower_gradient._replace(generator=generator_gradient), stats)


def _read(
    recipe: Recipe,
    weights: Params,
    inputs: Tokens | PackedInputs,
    batch: Batch,
    key: DropoutKey,
    doc_log_prior: Float[Array, "B K"],
) -> tuple[Float[Array, "B n T V"], ReaderSignals | None]:
    """The logits, and with a distillation the reader's signals, from the same pass."""
    generator, fuses = recipe.networks.generator, recipe.layout.fuses
    if fuses and recipe.distillation is not None:
        return _read_fused(generator, weights, inputs, batch, key, doc_log_prior)
    logits = reading.read(generator, weights, inputs, batch.decoder_inputs, key, doc_log_prior if fuses else None)
    if recipe.distillation is None:
        return logits, None
    log_probs = likelihood.target_log_probs(jax.lax.stop_gradient(logits), batch.targets)
    return logits, ReaderSignals(log_probs, batch.target_mask)


def _read_fused(
    generator: Generator,
    weights: Params,
    inputs: Tokens | PackedInputs,
    batch: Batch,
    key: DropoutKey,
    doc_log_prior: Float[Array, "B K"],
) -> tuple[Float[Array, "B n T V"], ReaderSignals]:
    """Fusion-in-Decoder's logits and signals: passages are encoded once.

    The log-probabilities under each passage are those of a second pass of the decoder, over one passage at a time,
    without dropout of its own or gradient. The compiler removes it, or the attention, where the distillation does not
    use it.
    """
    encode_key, decode_key = split(key)
    rows = inputs if isinstance(inputs, PackedInputs) else reading.rows(inputs)
    encoded = generator.encode(weights, rows, encode_key)
    fused = reading.fuse(generator, encoded, doc_log_prior)
    logits = reading.predict(generator, weights, fused, batch.decoder_inputs, 1, decode_key)

    weights, encoded, fused = jax.lax.stop_gradient((weights, encoded, fused))
    by_passage = reading.predict(generator, weights, encoded, batch.decoder_inputs, doc_log_prior.shape[1])
    log_probs = likelihood.target_log_probs(by_passage, batch.targets)
    if generator.cross_attention is None:
        return logits, ReaderSignals(log_probs, batch.target_mask)
    mass = attention.token_attention_mass(generator, weights, fused, batch.decoder_inputs, doc_log_prior)
    return logits, ReaderSignals(log_probs, batch.target_mask, attention.mean_over_tokens(mass, batch.target_mask))


def _search(recipe: Recipe, towers: RagParams, knowledge: Knowledge, inputs: TrainingBatch) -> SearchResults:
    """The passages that the recipe retrieves, by towers without dropout: noise belongs in the scores, not in what is
    read.
    """
    how, num_docs = recipe.refresh, recipe.prior_docs or recipe.num_docs
    queries = recipe.networks.tower(towers.question_tower, inputs.batch.question)
    if how is None or how.num_candidates is None:
        rows = recipe.retrieve(recipe.lookup, queries, knowledge, num_docs, inputs.positives)
    else:
        candidates = recipe.retrieve(recipe.lookup, queries, knowledge, how.num_candidates, inputs.positives)
        rows = refresh.rank(how, recipe.lookup, towers.passage_tower, queries, knowledge, candidates, num_docs)
    return SearchResults(rows, scores=None)


def _gather(
    recipe: Recipe,
    passage_tower: Params | None,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    search_results: SearchResults,
    key: DropoutKey,
) -> tuple[Retrieved, Tokens]:
    """The passages of `search_results`.

    They are encoded again where the passage tower is trained, unless the search has scores of its own.
    """
    if recipe.refresh is None or search_results.scores is not None:
        return retrieval.gather_results(queries, knowledge, search_results, recipe.lookup)
    key = None if key is None else jax.random.fold_in(key, PASSAGES)
    return refresh.retrieve(recipe.refresh, recipe.lookup, passage_tower, queries, knowledge, search_results.rows, key)


def _best(
    num_docs: int, doc_log_prior: Float[Array, "B N"], retrieved: Retrieved, passages: Tokens
) -> tuple[Float[Array, "B K"], tuple[Retrieved, Tokens]]:
    """The K best of N passages, with their part of the prior over all N, which bounds the marginal from below:

        sum_{z in top-K} p(z|x) p(y|x,z)  <=  sum_{z in top-N} p(z|x) p(y|x,z)

    The gradient of RAG-Sequence's log-likelihood with respect to a score is then the posterior over the K minus p(z|x)
    for a passage that is read, and -p(z|x) for another: mass that is lost on passages nobody reads is pulled back.

    A search by stored vectors may have another order than the prior, whose scores are fresh.
    """
    order = jax.lax.top_k(jax.lax.stop_gradient(doc_log_prior), num_docs)[1]

    def chosen(each: Array) -> Array:
        return jnp.take_along_axis(each, order.reshape(*order.shape, *[1] * (each.ndim - 2)), axis=1)

    return jax.tree.map(chosen, (doc_log_prior, (retrieved, passages)))
