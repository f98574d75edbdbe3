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

from rag_jax.core import likelihood, packing, reading, retrieval
from rag_jax.core.dropout import split
from rag_jax.core.recipe import Recipe
from rag_jax.core.step_metrics import RetrievalStats
from rag_jax.core.trainable import combine, partition
from rag_jax.types import Batch, Knowledge, PackedInputs, Params, RagParams, Retrieved, SearchResults, Tokens


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
    """One microbatch, forwards and backwards."""
    batch, (trained, frozen) = inputs.batch, partition(params, recipe.trainable)
    tower_key, generator_key = split(key)

    def retrieve(question_tower: Params) -> tuple[Float[Array, "B K"], tuple[Retrieved, Tokens]]:
        tower = combine(question_tower, frozen.question_tower)
        queries = recipe.networks.tower(tower, batch.question, tower_key)
        retrieved, passages = _gather(recipe, queries, knowledge, inputs)
        return likelihood.doc_log_prior(retrieved.scores, retrieved.valid), (retrieved, passages)

    def read_and_marginalise(
        generator: Params, doc_log_prior: Float[Array, "B K"], generator_inputs: Tokens | PackedInputs
    ) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
        weights = combine(generator, frozen.generator)
        target = batch.decoder_inputs, generator_key, doc_log_prior if recipe.layout.fuses else None
        logits = reading.read(recipe.networks.generator, weights, generator_inputs, *target)
        read_log_prior = reading.group_log_prior(doc_log_prior, recipe.layout)
        losses = recipe.objective(read_log_prior, logits, batch.targets, batch.target_mask)
        if not recipe.layout.has_posterior:
            return jnp.mean(losses), jnp.full_like(doc_log_prior, jnp.nan)
        target_log_probs = likelihood.target_log_probs(logits, batch.targets)
        posterior = likelihood.sequence_doc_posterior(doc_log_prior, target_log_probs, batch.target_mask)
        return jnp.mean(losses), posterior

    doc_log_prior, retrieve_vjp, (retrieved, passages) = jax.vjp(retrieve, trained.question_tower, has_aux=True)
    generator_inputs = reading.assemble(passages, batch.prompt, recipe.layout)
    lengths, shortest = packing.pack_at_lengths(generator_inputs, recipe.layout.num_packs, recipe.layout.pack_lengths)
    differentiate = jax.value_and_grad(read_and_marginalise, argnums=(0, 1), has_aux=True)
    branches = [partial(differentiate, generator_inputs=each) for each in lengths]
    (loss, posterior), (generator_gradient, prior_gradient) = jax.lax.switch(
        shortest, branches, trained.generator, doc_log_prior
    )
    (tower_gradient,) = retrieve_vjp(prior_gradient)
    exists = ~jnp.isneginf(reading.group_log_prior(doc_log_prior, recipe.layout._replace(fuses=False)))
    input_lengths = jnp.where(exists, generator_inputs.lengths, 0)
    stats = RetrievalStats(retrieved.rows, doc_log_prior, posterior, input_lengths)
    return LossAndGradient(loss, RagParams(tower_gradient, generator_gradient), stats)


def _gather(
    recipe: Recipe, queries: Float[Array, "B D"], knowledge: Knowledge, inputs: TrainingBatch
) -> tuple[Retrieved, Tokens]:
    """The passages of `inputs.search_results`, or those that the recipe retrieves."""
    search_results = inputs.search_results
    if search_results is None:
        rows = recipe.retrieve(recipe.lookup, queries, knowledge, recipe.num_docs, inputs.positives)
        search_results = SearchResults(rows, scores=None)
    return retrieval.gather_results(queries, knowledge, search_results, recipe.lookup)
