"""transformers' own tests of RAG, restated: its retriever's, and what its models promise of what they are given."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import RagConfig, RagRetriever
from transformers.models.rag.retrieval_rag import CustomHFIndex

import oracle
import retrieved
from oracle import relative
from pretrained import KINDS, QUESTIONS
from rag_jax.core import retrieval
from rag_jax.core.decode import choice, decoding, rag_token
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.reading import InputLayout
from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError
from rag_jax.index.importers import import_index
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import Store, from_vectors
from rag_jax.pipeline.question_batches import question_batches
from rag_jax.rag import RAG
from rag_jax.types import InferenceBatch, Tokens
from retrieved import WIDTH, Both, Theirs
from suites import first

TWO = [Passage("0", "Foo", "foo"), Passage("1", "Bar", "bar")]
ONES = np.ones((1, WIDTH), np.float32)
ANSWERS = ["Aaron", "Vienna", "the Danube"]


@pytest.fixture(scope="module", params=first(1, KINDS))
def both(request, tmp_path_factory) -> Both:
    return retrieved.both(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def token(tmp_path_factory) -> Both:
    return retrieved.both(tmp_path_factory.mktemp("token"), "token")


@pytest.fixture(scope="module")
def retriever(token: Both, tmp_path_factory) -> RagRetriever:
    """transformers', over two passages whose vectors are ones and twos."""
    index = retrieved.save_index(tmp_path_factory.mktemp("two"), np.concatenate([ONES, 2 * ONES]), TWO)
    config = RagConfig.from_pretrained(token.folder / "rag", index_name="custom")
    places = {"dataset_path": str(index / "passages"), "index_path": str(index / "index.faiss")}
    tokenizers = token.theirs.retriever
    found = CustomHFIndex.load_from_disk(WIDTH, **places)
    return RagRetriever(config, tokenizers.question_encoder_tokenizer, tokenizers.generator_tokenizer, index=found)


def two(folder: Path, token: Both) -> Store:
    found = import_index(folder, WIDTH)
    return from_vectors(found.passages, found.vectors, PassageTokenizer(token.ours.components.generator_tokenizer, 16))


def assert_found(store: Store, queries: np.ndarray) -> None:
    knowledge = jax.device_put(store.knowledge)
    rows = retrieval.nearest(jnp.asarray(queries), knowledge, 1).rows
    assert rows.tolist() == [[1], [0]]
    found, passages = retrieval.gather(jnp.asarray(queries), knowledge, rows)
    assert found.scores.tolist() == [[2 * WIDTH], [-WIDTH]]
    assert passages.ids.shape[:2] == (2, 1)
    assert [store.passages[row] for row in rows[:, 0]] == [TWO[1], TWO[0]]


@pytest.mark.extended
def test_the_largest_inner_product_is_found_here_and_there(retriever, token: Both, tmp_path: Path) -> None:
    queries = np.concatenate([ONES, -ONES])
    vectors, rows, documents = retriever.retrieve(queries, n_docs=1)
    assert vectors.shape == (2, 1, WIDTH)
    assert rows.tolist() == [[1], [0]]
    assert [(each["title"], each["text"]) for each in documents] == [(["Bar"], ["bar"]), (["Foo"], ["foo"])]

    retriever.save_pretrained(tmp_path)  # under names of its own
    assert_found(two(tmp_path, token), queries)
    assert_found(two(retrieved.save_index(tmp_path / "here", np.concatenate([ONES, 2 * ONES]), TWO), token), queries)
    again = RagRetriever.from_pretrained(tmp_path)
    again.init_retrieval()
    assert again.retrieve(queries, n_docs=1)[1].tolist() == rows.tolist()


def test_more_passages_than_there_are_are_refused(token: Both, tmp_path: Path) -> None:
    """transformers fills up with the last passage; see also -1 in tests/core/test_retrieval.py."""
    index = retrieved.save_index(tmp_path, np.concatenate([ONES, 2 * ONES]), TWO)
    with pytest.raises(InputError, match=r"cannot read K = 3 of 2 passages \(num_docs\); ask for 1 to 2"):
        token.ours.with_index(index).search(QUESTIONS, 3)


@pytest.mark.extended
def test_what_is_retrieved_or_given_or_encoded_before_gives_the_same_answers(token: Both) -> None:
    """Retrieved here; passages and scores from transformers; its generator inputs, read to a memory of the encoder."""
    ours, parts, k = token.ours, token.ours.components, 2
    networks, words = parts.networks, parts.generator_tokenizer
    labels = pad(words.targets(ANSWERS), 8, words.eos)
    answers = jax.tree.map(lambda each: jnp.repeat(each[None], len(QUESTIONS), axis=0), labels)
    decoder = partial(choice.choose, answers=answers, marginalise=rag_token.marginalise, limits=parts.limits)
    found = [token.theirs.found(question, k) for question in QUESTIONS]
    nothing = Tokens(jnp.zeros((len(QUESTIONS), 0), jnp.int32), jnp.zeros(len(QUESTIONS), jnp.int32))

    @oracle.jit
    def program(params, knowledge, question, prompt, rows, scores, inputs):
        fixed = {"decoder": decoder, "layout": InputLayout(64)}
        whole = decoding.answer(
            networks, params, knowledge, InferenceBatch(question, prompt), nothing, **fixed, num_docs=k
        )
        passages = jax.tree.map(lambda each: each[rows], knowledge.passage_tokens)
        there = retrieval.Retrieved(rows, scores, rows >= 0)
        given = decoding.answer_from(networks, params, there, passages, prompt, nothing, **fixed)
        memory = networks.generator.encode(params.generator, inputs)
        decoded = decoder(
            EncodedInputs(networks.generator, params.generator, memory), jax.nn.log_softmax(scores), nothing
        )
        return whole.decoded, given.decoded, decoded

    (batch,) = question_batches(ours.components, QUESTIONS, 4)
    question, prompt = jax.tree.map(batch.first, tuple(batch.inputs))
    rows = jnp.asarray([each.rows for each in found], jnp.int32)
    scores = jnp.asarray([each.scores for each in found])
    inputs = pad([ids for each in found for ids in each.inputs], 64, words.pad)
    whole, *others = jax.device_get(program(ours.params, ours.knowledge, question, prompt, rows, scores, inputs))
    for other in others:
        np.testing.assert_array_equal(other.tokens, whole.tokens)
        assert relative(other.log_prob, whole.log_prob) < 1e-5
        assert relative(other.token_doc_posterior, whole.token_doc_posterior) < 1e-5


@pytest.mark.extended
def test_a_k_that_is_asked_for_is_as_if_the_model_had_it(token: Both, tmp_path: Path) -> None:
    model = RAG.from_pretrained(retrieved.save_rag(tmp_path, "token", n_docs=3), token.folder / "index")
    ask = partial(RAG.log_likelihood, questions=QUESTIONS, answers=ANSWERS)
    assert model.components.num_docs == 3
    np.testing.assert_array_equal(ask(model), ask(token.ours, num_docs=3))
    assert (ask(model) != ask(token.ours)).all()
    np.testing.assert_array_equal(ask(model, num_docs=2), ask(token.ours))
    for answer in token.ours.answer(QUESTIONS, num_docs=3, num_beams=1):
        assert len(answer.passages) == 3
        assert answer.token_posteriors.shape == (3, len(answer.tokens))


@pytest.mark.extended
def test_what_is_saved_is_what_is_loaded_here_and_there(both: Both, tmp_path: Path) -> None:
    ours, kind = both.ours, both.ours.components.config.model
    ours.save_pretrained(tmp_path / "rag")
    again = RAG.from_pretrained(tmp_path / "rag", both.folder / "index")
    jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)
    here, there = (each.components.config for each in (ours, again))
    assert (there.decoding, there.model, there.buckets) == (here.decoding, here.model, here.buckets)
    one, other = (each.log_likelihood(QUESTIONS, ANSWERS) for each in (ours, again))
    np.testing.assert_array_equal(one, other)
    answers = [[retrieved.texts(answer) for answer in each.answer(QUESTIONS, n_best=3)] for each in (ours, again)]
    assert answers[0] == answers[1]

    theirs = Theirs(tmp_path / "rag", kind, both.folder / "index")
    labels = [[0, *target] for target in ours.components.generator_tokenizer.targets(ANSWERS)]
    assert relative(theirs.losses(QUESTIONS, labels, 2), -one) < 1e-5
    for question, tokens in zip(QUESTIONS, answers[0], strict=True):
        assert [theirs.tokens(row) for row in theirs.generated(question, 2, num_return_sequences=3)] == tokens


def test_the_generator_s_logits_are_the_same_after_saving_there_and_here(token: Both, tmp_path: Path) -> None:
    token.ours.save_pretrained(tmp_path / "rag")
    models = token.theirs.model, Theirs(tmp_path / "rag", "token", token.folder / "index").model
    one, other = ({name: tensor.numpy() for name, tensor in model.state_dict().items()} for model in models)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name])
