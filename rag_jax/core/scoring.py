"""Score given answers: `log p(y|x)` of each question's target, marginalised over the retrieved passages.

Scoring uses the likelihood of the paper, not an objective: no dropout, no label smoothing, no optimizer.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from rag_jax.core import reading, retrieval
from rag_jax.core.likelihood import Likelihood, doc_log_prior, target_log_probs
from rag_jax.core.reading import InputLayout
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Retrieved, SearchResults


class Forward(NamedTuple):
    """One pass from questions to logits."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    read_log_prior: Float[Array, "B n"]  # of what the target was read under, see `reading.group_log_prior`
    logits: Float[Array, "B n T V"]


def log_likelihood(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    search_results: SearchResults | None = None,
    *,
    likelihood: Likelihood,
    num_docs: int,
    layout: InputLayout,
    index: Index = LOCAL,
) -> Float[Array, " B"]:
    """`log p(y|x)` of each target, in nats; `likelihood` is `likelihood.rag_token` or `likelihood.rag_sequence`."""
    how = {"num_docs": num_docs, "layout": layout, "index": index}
    outputs = forward(networks, params, knowledge, batch, search_results, **how)
    return likelihood(outputs.read_log_prior, target_log_probs(outputs.logits, batch.targets), batch.target_mask)


def forward(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    search_results: SearchResults | None = None,
    *,
    num_docs: int,
    layout: InputLayout,
    index: Index = LOCAL,
) -> Forward:
    """Retrieve K passages for each question, or take those of `search_results`, and read the target under each."""
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    prior = doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, batch.prompt, layout)
    read_log_prior, generator = reading.group_log_prior(prior, layout), (networks.generator, params.generator)
    encoded = reading.encode(*generator, inputs, layout, prior)
    logits = reading.predict(*generator, encoded, batch.decoder_inputs, read_log_prior.shape[1])
    return Forward(retrieved, prior, read_log_prior, logits)
