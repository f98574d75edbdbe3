"""Score given answers: `log p(y|x)` of each question's target, marginalised over the retrieved passages.

Scoring uses the likelihood of the paper, not an objective: no dropout, no label smoothing, no optimizer.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from rag_jax.core import reading, retrieval
from rag_jax.core.likelihood import Likelihood, doc_log_prior, target_log_probs
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Retrieved, SearchResults


class Forward(NamedTuple):
    """One pass from questions to logits."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    read_log_prior: Float[Array, "B n"]  # of what the target was read under: each passage, or all of them fused
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
    max_length: int,
    header: tuple[int, ...] = (),
    fuses: bool = False,
    index: Index = LOCAL,
) -> Float[Array, " B"]:
    """`log p(y|x)` of each target, in nats; `likelihood` is `likelihood.rag_token` or `likelihood.rag_sequence`."""
    sizes = {"num_docs": num_docs, "max_length": max_length, "header": header, "fuses": fuses}
    outputs = forward(networks, params, knowledge, batch, search_results, **sizes, index=index)
    return likelihood(outputs.read_log_prior, target_log_probs(outputs.logits, batch.targets), batch.target_mask)


def forward(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    search_results: SearchResults | None = None,
    *,
    num_docs: int,
    max_length: int,
    header: tuple[int, ...] = (),
    fuses: bool = False,
    index: Index = LOCAL,
) -> Forward:
    """Retrieve K passages for each question, or take those of `search_results`, and read the target under each.

    With `fuses` it is read under all of them together (Fusion-in-Decoder).
    """
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    prior = doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, batch.prompt, max_length, header)
    fused_by, read_log_prior = (prior, reading.fused_log_prior(prior)) if fuses else (None, prior)
    logits = reading.read(networks.generator, params.generator, inputs, batch.decoder_inputs, fused_by=fused_by)
    return Forward(retrieved, prior, read_log_prior, logits)
