"""Which passages a fused answer rests on: the mass of the decoder's cross-attention (Izacard & Grave 2021b).

Fusion-in-Decoder has no posterior over its passages. What it attends to while it writes the answer y takes its place,

    a(z) = 1 / T sum_t  1 / (layers H) sum_{layer, head}  sum_{s in z} softmax_s(q_t . k_s),

a distribution over the passages; "Distilling Knowledge from Reader to Retriever" shows that it ranks passages by how
much they help. As the target of a retriever it is used behind `jax.lax.stop_gradient`. (FiD-KD's own target is made of
the scores before the softmax, of the first token.)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import likelihood, reading, retrieval
from rag_jax.core.reading import InputLayout
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import (
    Batch,
    Generator,
    Knowledge,
    Networks,
    PackedInputs,
    Params,
    RagParams,
    SearchResults,
    Tokens,
)


def of_retrieved(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: Batch,
    search_results: SearchResults | None = None,
    *,
    num_docs: int,
    layout: InputLayout,
    index: Index = LOCAL,
) -> Float[Array, "B K"]:
    """`attention_mass` of K retrieved passages, or of those of `search_results`, under each question's target."""
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    doc_log_prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, batch.prompt, layout)
    target = batch.decoder_inputs, batch.target_mask
    return attention_mass(networks.generator, params.generator, inputs, *target, doc_log_prior)


def attention_mass(
    generator: Generator,
    params: Params,
    inputs: Tokens | PackedInputs,
    decoder_inputs: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    doc_log_prior: Float[Array, "B K"],
) -> Float[Array, "B K"]:
    """The share of the attention that each passage gets while one target per question is read, without dropout.

    It sums to 1, and is exactly 0 for a passage that does not exist, whose prior is -inf. A question without passages,
    or whose `mask` is False throughout, has none: zeros.

    Args:
        inputs: of each passage, `[B, K, S]`, or packed rows.
        mask: the target's tokens, which are averaged over.
        doc_log_prior: of which only -inf counts.

    Raises `ValueError` for a generator that cannot fuse, or whose cross-attention is not known.
    """
    encoded = generator.encode(params, inputs if isinstance(inputs, PackedInputs) else reading.rows(inputs))
    fused = reading.fuse(generator, encoded, doc_log_prior)
    return mean_over_tokens(token_attention_mass(generator, params, fused, decoder_inputs, doc_log_prior), mask)


def of_answers(
    generator: Generator,
    params: Params,
    fused: Any,
    answers: Int[Array, "B C T"],
    mask: Bool[Array, "B C T"],
    doc_log_prior: Float[Array, "B K"],
    decoder_start: tuple[int, ...],
) -> Float[Array, "B C K"]:
    """`attention_mass` of answers that were decoded after the tokens `decoder_start`, one after another."""
    begun = jnp.broadcast_to(jnp.asarray(decoder_start, answers.dtype)[None, :], (len(answers), len(decoder_start)))

    def mass(answer: tuple[Int[Array, "B T"], Bool[Array, "B T"]]) -> Float[Array, "B K"]:
        decoder_inputs = jnp.concatenate([begun, answer[0][:, :-1]], axis=1)
        per_token = token_attention_mass(generator, params, fused, decoder_inputs, doc_log_prior)
        return mean_over_tokens(per_token[:, :, begun.shape[1] - 1 :], answer[1])

    by_rank = jax.lax.map(mass, (jnp.swapaxes(answers, 0, 1), jnp.swapaxes(mask, 0, 1)))
    return jnp.swapaxes(by_rank, 0, 1)


def token_attention_mass(
    generator: Generator,
    params: Params,
    fused: Any,
    decoder_inputs: Int[Array, "B T"],
    doc_log_prior: Float[Array, "B K"],
) -> Float[Array, "B K T"]:
    """The share of each target token's attention that each passage gets, from what `reading.fuse` returned."""
    if generator.cross_attention is None:
        raise ValueError("this generator has no `cross_attention`, which the attention mass needs")
    weights = generator.cross_attention(params, decoder_inputs, fused)
    batch, num_docs = doc_log_prior.shape
    by_passage = jnp.sum(weights.reshape(batch, -1, num_docs, weights.shape[2] // num_docs), axis=3)
    return jnp.where(jnp.isneginf(doc_log_prior)[:, :, None], 0.0, jnp.swapaxes(by_passage, 1, 2))


def mean_over_tokens(per_token: Float[Array, "B K T"], mask: Bool[Array, "B T"]) -> Float[Array, "B K"]:
    """The mean over the tokens where the mask is True; zero where it is so nowhere."""
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)
    return jnp.sum(jnp.where(mask[:, None, :], per_token, 0.0), axis=2) / count[:, None]
