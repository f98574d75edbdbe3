"""From questions to answers in one compiled program: encode, search, read, decode (Lewis et al. 2020, section 2.5).

Each passage is encoded once, and every answer is returned with the passages that it rests on. How answers are found is
a `Decoder`: `rag_token.decode`, `rag_sequence.thorough`, `choice.choose` …
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core import attention, likelihood, reading, retrieval
from rag_jax.core.decode.decoded import Decoded, Decoder
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.reading import InputLayout
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import InferenceBatch, Knowledge, Networks, RagParams, Retrieved, SearchResults, Tokens


class Answered(NamedTuple):
    """Answers with the passages they rest on. Posteriors are of what was read, see `reading.group_log_prior`."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    decoded: Decoded
    attention_mass: Float[Array, "B C K"] | None = None  # of fused passages, where it was asked for


def answer(
    networks: Networks,
    params: RagParams,
    knowledge: Knowledge,
    batch: InferenceBatch,
    prefix: Tokens,
    search_results: SearchResults | None = None,
    *,
    decoder: Decoder,
    num_docs: int,
    layout: InputLayout,
    attends_after: tuple[int, ...] | None = None,
    index: Index = LOCAL,
) -> Answered:
    """Encode the questions, search, read the passages, decode: one program from question tokens to answer tokens.

    With `search_results` their passages are read instead of the K nearest. Answers begin with `prefix` `[B, G]`; see
    `no_prefix`. Where the layout fuses the passages, `attends_after`, the decoder's start, asks for their attention
    mass too; elsewhere it raises `ValueError`.
    """
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    how = {"decoder": decoder, "layout": layout, "attends_after": attends_after}
    return answer_from(networks, params, retrieved, passages, batch.prompt, prefix, **how)


def answer_from(
    networks: Networks,
    params: RagParams,
    retrieved: Retrieved,
    passages: Tokens,
    prompt: Tokens,
    prefix: Tokens,
    *,
    decoder: Decoder,
    layout: InputLayout,
    attends_after: tuple[int, ...] | None = None,
) -> Answered:
    """Read passages `[B, K, P]` from any source, and decode."""
    if attends_after is not None and not layout.fuses:
        raise ValueError("`attends_after` asks for the attention over fused passages; the layout does not fuse them")
    doc_log_prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, prompt, layout)
    encoded = reading.encode(networks.generator, params.generator, inputs, layout, doc_log_prior)
    read_log_prior = reading.group_log_prior(doc_log_prior, layout)
    decoded = decoder(EncodedInputs(networks.generator, params.generator, encoded), read_log_prior, prefix)
    if attends_after is None:
        return Answered(retrieved, doc_log_prior, decoded)
    answers = decoded.tokens, decoded.mask, doc_log_prior, attends_after
    mass = attention.of_answers(networks.generator, params.generator, encoded, *answers)
    return Answered(retrieved, doc_log_prior, decoded, mass)


def no_prefix(num_questions: int) -> Tokens:
    """The prefix `[B, 0]` of answers that may begin with any token."""
    return Tokens(jnp.zeros((num_questions, 0), jnp.int32), jnp.zeros(num_questions, jnp.int32))
