"""The facade's compiled programs, from token ids to answers: one for each composition, whatever the index holds."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rag_jax.core import decoding, training
from rag_jax.core.decoding import Answered
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.core.search import Limits
from rag_jax.run.decoders import Decoding, Words
from rag_jax.run.parts import OBJECTIVES
from rag_jax.types import Found, Knowledge, Networks, RagParams, Tokens


@lru_cache
def answering(
    networks: Networks,
    model: str,
    options: Decoding,
    limits: Limits,
    words: Words,
    num_docs: int,
    max_length: int,
    index: Index = LOCAL,
):
    """The compiled program from question tokens to answers: one for each composition, whatever the index holds."""

    def program(params, knowledge, question, prompt, given, found, key, numbers) -> Answered:
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        decoder = options.decoder(model, limits, words, keys)
        return decoding.answer(
            networks,
            params,
            knowledge,
            question,
            prompt,
            given,
            found,
            decoder=decoder,
            num_docs=num_docs,
            max_length=max_length,
            index=index,
        )

    return jax.jit(program)


@lru_cache
def choosing(networks: Networks, model: str, limits: Limits, num_docs: int, max_length: int, index: Index = LOCAL):
    judge = decoding.by_token if model == "token" else decoding.by_sequence

    def program(params, knowledge, question, prompt, labels, found) -> Answered:
        batch = question.ids.shape[0]
        answers = jax.tree.map(lambda each: jnp.repeat(each[None], batch, axis=0), labels)
        nothing = Tokens(jnp.zeros((batch, 0), jnp.int32), jnp.zeros(batch, jnp.int32))
        decoder = partial(decoding.choose, answers=answers, judge=judge, limits=limits)
        fixed = {"decoder": decoder, "num_docs": num_docs, "max_length": max_length, "index": index}
        return decoding.answer(networks, params, knowledge, question, prompt, nothing, found, **fixed)

    return jax.jit(program)


@lru_cache
def scoring(networks: Networks, model: str, num_docs: int, max_length: int, index: Index = LOCAL):
    parts = networks, OBJECTIVES[model], optax.identity(), num_docs, max_length
    recipe = training.Recipe(*parts, lookup=index)
    return jax.jit(partial(training.eval_step, recipe))


@lru_cache
def searching(networks: Networks, num_docs: int, index: Index = LOCAL):
    def search(params: RagParams, knowledge: Knowledge, question: Tokens, excluded: Array | None = None) -> Found:
        return index.nearest(networks.tower(params.question_tower, question), knowledge, num_docs, excluded)

    return jax.jit(search)


@lru_cache
def encoding(networks: Networks):
    """Questions to vectors, for searches outside the programs."""

    def encode(params: RagParams, question: Tokens) -> Array:
        return networks.tower(params.question_tower, question)

    return jax.jit(encode)
