"""From question tokens to answer tokens in one compiled program."""

from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
import pytest

import answering
import naive
from answering import assert_judged, close
from rag_jax.core.decode import beam, decoding
from rag_jax.core.reading import InputLayout
from rag_jax.types import InferenceBatch, Knowledge, Networks, RagParams, Retrieved, SearchResults, Tokens
from readers import BARTS, CAT, CHAINS, COW, DOG, HISTORIES, SEEDS, B, K, Read, World, chain
from suites import first

N, P, L, D = 7, 4, 3, 5
BEAM = answering.Beam(2)


def embed(params, tokens, key=None):
    """A question's vector is its first token's."""
    return params[tokens.ids[:, 0]]


def program(tower, world: World, decoder: str = "token", num_docs: int = 3, max_length: int = 6):
    """`answer` and `answer_from`, compiled."""
    search, limits = partial(beam.search, **BEAM._asdict()), world.limits
    decoder = partial(answering.DECODERS[decoder], search=search, limits=limits, n_best=2)
    networks = Networks(tower, world.generator)
    answer = partial(decoding.answer, networks, decoder=decoder, num_docs=num_docs, layout=InputLayout(max_length))
    return jax.jit(answer), jax.jit(
        partial(decoding.answer_from, networks, decoder=decoder, layout=InputLayout(max_length))
    )


# By hand: chains whose first token is their number.

WORDS = [chain({word: 1.0}) for word in (CAT, DOG, COW)]
SHARP = RagParams(20 * np.eye(3, dtype=np.float32), np.stack(WORDS))


def question_tokens(first: list[int], width: int) -> Tokens:
    ids = np.zeros((len(first), width), np.int32)
    ids[:, 0] = first
    return Tokens(ids, np.ones(len(first), np.int32))


def chain_knowledge(order: list[int]) -> Knowledge:
    """Passage n answers question `order[n]`, and its first token is its number."""
    count = len(order)
    ids = np.arange(count, dtype=np.int32)[:, None] * np.ones((1, 2), np.int32)
    return Knowledge(np.eye(count, dtype=np.float32)[order], Tokens(ids, np.full(count, 2, np.int32)))


@pytest.mark.extended
@pytest.mark.parametrize("decoder", list(answering.DECODERS))
def test_the_answer_is_what_the_best_passage_says(decoder):
    answer, _ = program(embed, CHAINS, decoder, num_docs=2)
    order, prompt = [2, 0, 1], question_tokens([0, 0, 0], 2)
    answered = answer(
        SHARP, chain_knowledge(order), InferenceBatch(question_tokens([0, 1, 2], 3), prompt), answering.nothing()
    )
    assert answered.retrieved.rows[:, 0].tolist() == [order.index(question) for question in range(3)]
    assert answered.decoded.tokens[:, 0, 0].tolist() == [DOG, COW, CAT]
    close(np.exp(answered.doc_log_prior), naive.doc_prior(np.array(answered.retrieved.scores)))


def test_every_bucket_is_compiled_once_whatever_the_knowledge():
    compiled = []

    def counted(params, tokens, key=None):
        compiled.append(tokens.ids.shape)
        return embed(params, tokens, key)

    answer, _ = program(counted, CHAINS, num_docs=2)
    prompt, nothing = question_tokens([0, 0], 2), answering.nothing(2)
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        answered = answer(SHARP, chain_knowledge(order), InferenceBatch(question_tokens([0, 1], 3), prompt), nothing)
        assert answered.decoded.tokens[:, 0, 0].tolist() == [[CAT, DOG, COW][order.index(q)] for q in (0, 1)]
    assert compiled == [(2, 3)]
    answer(SHARP, chain_knowledge([0, 1, 2]), InferenceBatch(question_tokens([2, 1], 5), prompt), nothing)
    assert compiled == [(2, 3), (2, 5)]


# On random passages and questions.

SIZE = 6  # S: of inputs; a passage and a prompt together may be longer


class Told(NamedTuple):
    """What a program is told of random passages and of questions about them."""

    params: RagParams
    knowledge: Knowledge
    batch: InferenceBatch
    given: Tokens


def told(world: World, seed: int) -> Told:
    draw = np.random.default_rng(seed)
    params = RagParams(draw.standard_normal((world.words, D)).astype(np.float32), world.read(seed).params)
    knowledge = Knowledge(draw.standard_normal((N, D)).astype(np.float32), tokens(draw, world, N, P))
    question, prompt = tokens(draw, world, B, 4), tokens(draw, world, B, L)
    return Told(params, knowledge, InferenceBatch(question, prompt), answering.prefixes(seed, world, 2))


def tokens(draw: np.random.Generator, world: World, rows: int, length: int) -> Tokens:
    ids = draw.integers(0, world.words, (rows, length)).astype(np.int32)
    return Tokens(ids, draw.integers(1, length + 1, rows).astype(np.int32))


def as_list(several: Tokens, row: int) -> list[int]:
    return several.ids[row, : several.lengths[row]].tolist()


@cache
def compiled(world: World, decoder: str):
    return program(embed, world, decoder, max_length=SIZE)


decoders = pytest.mark.parametrize("decoder", first(1, ["token", "thorough"]))


def assert_by_hand(world: World, decoder: str, seed: int) -> None:
    """Passages by sorting, inputs by joining lists, each of them read by itself, a prior by the paper's formula."""
    params, knowledge, (question, prompt), given = told(world, seed)
    answered = jax.device_get(compiled(world, decoder)[0](*told(world, seed)))
    scores, ids = naive.top_k(params.question_tower[question.ids[:, 0]], knowledge.passage_vectors, K)
    assert answered.retrieved.rows.tolist() == ids
    prior = naive.doc_prior(np.array(scores))
    close(np.exp(answered.doc_log_prior), prior)

    inputs = [
        naive.assemble(as_list(knowledge.passage_tokens, z), as_list(prompt, b), SIZE) for b in range(B) for z in ids[b]
    ]
    filled = np.array([each + [5] * (SIZE - len(each)) for each in inputs], np.int32)
    memory = jax.jit(world.generator.encode)(params.generator, Tokens(filled, np.array([*map(len, inputs)], np.int32)))
    seen = Read(params.generator, np.log(prior).astype(np.float32), memory)
    expected = answering.decode(decoder, world, seen, BEAM, given)
    np.testing.assert_array_equal(answered.decoded.tokens, expected.tokens)
    jax.tree.map(close, answered.decoded, expected)
    assert_judged(answered.decoded, {"token": "token"}.get(decoder, "sequence"), world, seen)


@decoders
def test_it_is_search_reading_and_decoding_by_hand(decoder):
    for seed in range(10):
        assert_by_hand(HISTORIES, decoder, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_network_it_is_search_reading_and_decoding_by_hand(seed):
    assert_by_hand(BARTS, "token", seed)


def widened(seed: int, narrow: Tokens, by: int) -> Tokens:
    """The same sequences in a wider bucket, with arbitrary words behind their ends."""
    rows, length = narrow.ids.shape
    noise = np.random.default_rng(seed).integers(0, HISTORIES.words, (rows, length + by)).astype(np.int32)
    inside = np.arange(length)[None, :] < narrow.lengths[:, None]
    noise[:, :length] = np.where(inside, narrow.ids, noise[:, :length])
    return Tokens(noise, narrow.lengths)


@decoders
def test_wider_buckets_and_what_stands_behind_the_ends_change_nothing(decoder):
    narrow, (answer, _) = told(HISTORIES, 0), compiled(HISTORIES, decoder)
    wide_batch = InferenceBatch(widened(1, narrow.batch.question, 3), widened(3, narrow.batch.prompt, 2))
    by = {"batch": wide_batch, "given": widened(2, narrow.given, 1)}
    one, other = (jax.device_get(answer(*each)) for each in (narrow, narrow._replace(**by)))
    np.testing.assert_array_equal(one.decoded.tokens, other.decoded.tokens)
    jax.tree.map(close, one, other)


@decoders
def test_passages_from_elsewhere_are_read_like_those_of_the_index(decoder):
    asked, (answer, answer_from) = told(HISTORIES, 0), compiled(HISTORIES, decoder)
    expected = jax.device_get(answer(*asked))
    passages = jax.tree.map(lambda stored: stored[expected.retrieved.rows], asked.knowledge.passage_tokens)
    found = jax.device_get(answer_from(asked.params, expected.retrieved, passages, asked.batch.prompt, asked.given))
    np.testing.assert_array_equal(found.decoded.tokens, expected.decoded.tokens)
    jax.tree.map(close, found, expected)


def test_rows_that_another_search_chose_are_read_instead_of_the_nearest():
    asked, (answer, answer_from) = told(HISTORIES, 0), compiled(HISTORIES, "token")
    rows = np.array([[6, 0, 3], [2, -1, 5], [4, -1, -1]], np.int32)
    found = jax.device_get(answer(*asked, SearchResults(rows, None)))
    queries = asked.params.question_tower[asked.batch.question.ids[:, 0]]
    scores = np.einsum("BD,BKD->BK", queries, asked.knowledge.passage_vectors[rows])
    np.testing.assert_array_equal(found.retrieved.rows, rows)
    close(np.exp(found.doc_log_prior), naive.doc_prior(scores, rows >= 0))

    passages = jax.tree.map(lambda stored: stored[rows], asked.knowledge.passage_tokens)
    retrieved = Retrieved(rows, scores, rows >= 0)
    expected = jax.device_get(answer_from(asked.params, retrieved, passages, asked.batch.prompt, asked.given))
    np.testing.assert_array_equal(found.decoded.tokens, expected.decoded.tokens)
    jax.tree.map(close, found.decoded, expected.decoded)


def test_the_nearest_rows_chosen_beforehand_give_the_same_answers():
    asked, (answer, _) = told(HISTORIES, 0), compiled(HISTORIES, "token")
    expected = jax.device_get(answer(*asked))
    found = jax.device_get(answer(*asked, SearchResults(expected.retrieved.rows, None)))
    np.testing.assert_array_equal(found.decoded.tokens, expected.decoded.tokens)
    jax.tree.map(close, found, expected)


@decoders
def test_from_question_tokens_to_answer_tokens_nothing_passes_through_the_host(decoder):
    answer, _ = compiled(HISTORIES, decoder)
    arrays = jax.device_put(told(HISTORIES, 0))
    expected = jax.block_until_ready(answer(*arrays))
    with jax.transfer_guard("disallow"):
        found = jax.block_until_ready(answer(*arrays))
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
            answer(*arrays[:-1], told(HISTORIES, 0).given)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))
    assert not answer.trace(*arrays).jaxpr.effects
    assert "callback" not in answer.lower(*arrays).as_text()
