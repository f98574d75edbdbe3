"""From questions to answers in one compiled program: encode, search, read, decode (Lewis et al. 2020, section 2.5).

Each passage is encoded once, and every answer is returned with the passages that it rests on. How answers are found is
a `Decoder`: `rag_token.decode`, `rag_sequence.thorough`, `choice.choose` …
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core import likelihood, reading, retrieval
from rag_jax.core.decode.decoded import Decoded, Decoder
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.types import InferenceBatch, Knowledge, Networks, RagParams, Retrieved, SearchResults, Tokens


class Answered(NamedTuple):
    """Answers with the passages they rest on. Where these were fused, posteriors are of the one fused passage."""

    retrieved: Retrieved
    doc_log_prior: Float[Array, "B K"]
    decoded: Decoded


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
    max_length: int,
    header: tuple[int, ...] = (),
    fuses: bool = False,
    index: Index = LOCAL,
) -> Answered:
    """Encode the questions, search, read the passages, decode: one program from question tokens to answer tokens.

    With `search_results` their passages are read instead of the K nearest. Answers begin with `prefix` `[B, G]`; see
    `no_prefix`. With `fuses` the decoder reads all passages together (Fusion-in-Decoder).
    """
    queries = networks.tower(params.question_tower, batch.question)
    retrieved, passages = retrieval.retrieve(queries, knowledge, num_docs, search_results, index)
    read = {"decoder": decoder, "max_length": max_length, "header": header, "fuses": fuses}
    return answer_from(networks, params, retrieved, passages, batch.prompt, prefix, **read)


def answer_from(
    networks: Networks,
    params: RagParams,
    retrieved: Retrieved,
    passages: Tokens,
    prompt: Tokens,
    prefix: Tokens,
    *,
    decoder: Decoder,
    max_length: int,
    header: tuple[int, ...] = (),
    fuses: bool = False,
) -> Answered:
    """Read passages `[B, K, P]` from any source, and decode."""
    doc_log_prior = likelihood.doc_log_prior(retrieved.scores, retrieved.valid)
    inputs = reading.assemble(passages, prompt, max_length, header)
    encoded, read_log_prior = networks.generator.encode(params.generator, reading.rows(inputs)), doc_log_prior
    if fuses:
        encoded = reading.fuse(networks.generator, encoded, doc_log_prior)
        read_log_prior = reading.fused_log_prior(doc_log_prior)
    decoded = decoder(EncodedInputs(networks.generator, params.generator, encoded), read_log_prior, prefix)
    return Answered(retrieved, doc_log_prior, decoded)


def no_prefix(num_questions: int) -> Tokens:
    """The prefix `[B, 0]` of answers that may begin with any token."""
    return Tokens(jnp.zeros((num_questions, 0), jnp.int32), jnp.zeros(num_questions, jnp.int32))
