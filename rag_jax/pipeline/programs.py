"""The facade's compiled programs, from token ids to answers: one for each composition, whatever the index holds.

On a mesh of several processes each of them runs the same program and has its results.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from rag_jax.config.generation import ConstraintTokens, GenerationConfig
from rag_jax.core.attention import of_retrieved
from rag_jax.core.decode import choice, decoding
from rag_jax.core.decode.decoding import Answered
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.core.scoring import log_likelihood
from rag_jax.core.variants import VARIANTS, Model
from rag_jax.index.placement import Placement
from rag_jax.types import InferenceBatch, Knowledge, Networks, RagParams, SearchResults, Tokens

ONE = Placement()


@lru_cache
def answering(
    networks: Networks,
    model: Model,
    options: GenerationConfig,
    limits: GenerationLimits,
    words: ConstraintTokens,
    num_docs: int,
    layout: InputLayout,
    place: Placement = ONE,
    attention: bool = False,
):
    """The compiled program from question tokens to answers: one for each composition, whatever the index holds."""

    def program(
        params: RagParams,
        knowledge: Knowledge,
        batch: InferenceBatch,
        prefix: Tokens,
        search_results: SearchResults | None,
        key: Key[Array, ""],
        question_indices: Int[Array, " B"],
    ) -> Answered:
        keys = jax.vmap(partial(jax.random.fold_in, key))(question_indices)
        decoder = options.decoder(model, limits, words, keys)
        return decoding.answer(
            networks,
            params,
            knowledge,
            batch,
            prefix,
            search_results,
            decoder=decoder,
            num_docs=num_docs,
            layout=layout,
            attends_after=limits.decoder_start if attention else None,
            index=place.index,
        )

    return jax.jit(program, out_shardings=place.replicated)


@lru_cache
def choosing(
    networks: Networks,
    model: Model,
    limits: GenerationLimits,
    num_docs: int,
    layout: InputLayout,
    place: Placement = ONE,
):
    """The program that ranks the candidate answers `[C, T]`, which all questions share, best first."""

    def program(
        params: RagParams,
        knowledge: Knowledge,
        batch: InferenceBatch,
        candidates: Tokens,
        search_results: SearchResults | None,
    ) -> Answered:
        num_questions = batch.question.ids.shape[0]
        answers = jax.tree.map(lambda each: jnp.repeat(each[None], num_questions, axis=0), candidates)
        no_prefix = decoding.no_prefix(num_questions)
        variant = VARIANTS[model]
        decoder = partial(choice.choose, answers=answers, marginalise=variant.marginalise, limits=limits)
        fixed = {"decoder": decoder, "num_docs": num_docs, "layout": layout, "index": place.index}
        return decoding.answer(networks, params, knowledge, batch, no_prefix, search_results, **fixed)

    return jax.jit(program, out_shardings=place.replicated)


@lru_cache
def scoring(
    networks: Networks,
    model: Model,
    num_docs: int,
    layout: InputLayout,
    place: Placement = ONE,
):
    """The program that computes `log p(y|x)` `[B]` of each question's own answer."""
    score = partial(
        log_likelihood,
        networks,
        likelihood=VARIANTS[model].likelihood,
        num_docs=num_docs,
        layout=layout,
        index=place.index,
    )
    return jax.jit(score, out_shardings=place.replicated)


@lru_cache
def attending(networks: Networks, num_docs: int, layout: InputLayout, place: Placement = ONE):
    """The program that computes the attention mass `[B, K]` of the passages under each question's own answer."""
    how = {"num_docs": num_docs, "layout": layout, "index": place.index}
    return jax.jit(partial(of_retrieved, networks, **how), out_shardings=place.replicated)


@lru_cache
def searching(networks: Networks, num_docs: int, place: Placement = ONE):
    def search(
        params: RagParams, knowledge: Knowledge, question: Tokens, excluded: Array | None = None
    ) -> SearchResults:
        return place.index.nearest(networks.tower(params.question_tower, question), knowledge, num_docs, excluded)

    return jax.jit(search, out_shardings=place.replicated)


@lru_cache
def encoding(networks: Networks, place: Placement = ONE):
    """Questions to vectors, for searches outside the programs."""

    def encode(params: RagParams, question: Tokens) -> Array:
        return networks.tower(params.question_tower, question)

    return jax.jit(encode, out_shardings=place.replicated)
