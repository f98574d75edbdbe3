"""The whole model against transformers: question tower, retrieval, reading, both losses and every gradient.

transformers gets the passages that a search in plain numpy finds and inputs that Python lists assemble. It feeds the
labels to the decoder and shifts them left for the targets; here the two are given as such.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from transformers import BartConfig as TheirBartConfig
from transformers import (
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

import oracle
from oracle import jit, relative, torch
from rag_jax.core import likelihood, scoring
from rag_jax.core.losses import Objective, rag_sequence_loss, rag_token_loss
from rag_jax.core.reading import InputLayout
from rag_jax.models import bart, bert
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens
from suites import first, only

BOS, PAD, EOS = 0, 1, 2
EPSILON = 0.1


def rag_sequence_loss_of_transformers(prior, logits, targets, mask, *, label_smoothing):
    """RAG-Sequence's smoothing as transformers has it: each word of the vocabulary brings the prior along."""
    per_token = jnp.sum(jax.nn.log_softmax(logits, axis=3), axis=3)
    uniform = -likelihood.rag_sequence(prior * logits.shape[3], per_token, mask)
    nll = rag_sequence_loss(prior, logits, targets, mask)
    return (1 - label_smoothing) * nll + label_smoothing / logits.shape[3] * uniform


class Compared(NamedTuple):
    """A loss here, and what makes transformers compute the same."""

    ours: Objective
    theirs: type
    epsilon: float


OBJECTIVES = {
    "token": Compared(rag_token_loss, RagTokenForGeneration, 0.0),
    "sequence": Compared(rag_sequence_loss, RagSequenceForGeneration, 0.0),
    "token, smoothed": Compared(partial(rag_token_loss, label_smoothing=EPSILON), RagTokenForGeneration, EPSILON),
    "sequence, smoothed their way": Compared(
        partial(rag_sequence_loss_of_transformers, label_smoothing=EPSILON), RagSequenceForGeneration, EPSILON
    ),
}


class Case(NamedTuple):
    """Sizes to compare at."""

    num_docs: int
    tower: BertConfig
    generator: BartConfig


CASES = {
    "one passage": Case(
        1,
        BertConfig(vocab_size=40, width=16, layers=1, heads=2, ffn_width=24, max_positions=8),
        BartConfig(
            vocab_size=30, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=24, max_positions=14
        ),
    ),
    "three passages": Case(
        3,
        BertConfig(vocab_size=50, width=24, layers=2, heads=3, ffn_width=32, max_positions=8, projection=12),
        BartConfig(
            vocab_size=45, width=32, encoder_layers=2, decoder_layers=1, heads=4, ffn_width=40, max_positions=14
        ),
    ),
    "five passages": Case(
        5,
        BertConfig(vocab_size=40, width=16, layers=1, heads=4, ffn_width=48, max_positions=8, token_types=1),
        BartConfig(
            vocab_size=60,
            width=24,
            encoder_layers=1,
            decoder_layers=1,
            heads=2,
            ffn_width=32,
            max_positions=14,
            scale_embedding=True,
        ),
    ),
}
B, N, P, L, T = 3, 11, 8, 5, 6


class Data(NamedTuple):
    """A knowledge store, and questions with answers."""

    knowledge: Knowledge
    batch: Batch
    labels: np.ndarray  # [B, T + 1]: `<s> answer </s>`, as transformers takes them


@cache
def data(case: Case) -> Data:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(N, case.tower.vector_width)) * 1.5 / np.sqrt(case.tower.vector_width)
    words = partial(oracle.tokens, rng, vocab=case.generator.vocab_size, pad=PAD)
    question = oracle.tokens(rng, B, case.tower.max_positions, case.tower.vocab_size, oracle.BERT_PAD)
    labels = with_ends(rng, case.generator.vocab_size)
    targets = jnp.asarray(labels[:, 1:])
    batch = Batch(question, words(B, L), jnp.asarray(labels[:, :-1]), targets, targets != PAD)
    return Data(Knowledge(jnp.asarray(vectors, jnp.float32), words(N, P)), batch, labels)


def with_ends(rng: np.random.Generator, vocab: int) -> np.ndarray:
    """Answers of T - 1, 1 and T - 2 words as `<s> answer </s>`, padded to T + 1."""
    labels = np.full((B, T + 1), PAD, np.int32)
    for row, length in enumerate((T - 1, 1, T - 2)):
        labels[row, : length + 2] = [BOS, *rng.integers(oracle.FIRST_WORD, vocab, length), EOS]
    return labels


@cache
def theirs(case: Case, kind: type = RagTokenForGeneration, epsilon: float = 0.0):
    """A RAG model of transformers; every kind has the same random weights."""
    question_encoder = DPRConfig(**oracle.bert_sizes(case.tower), projection_dim=case.tower.projection or 0)
    generator = TheirBartConfig(**oracle.bart_sizes(case.generator))
    config = RagConfig(
        question_encoder=question_encoder.to_dict(),
        generator=generator.to_dict(),
        n_docs=case.num_docs,
        label_smoothing=epsilon,
    )
    model = kind(config)
    assert isinstance(model.question_encoder, DPRQuestionEncoder)
    assert isinstance(model.generator, BartForConditionalGeneration)
    oracle.draw(model.question_encoder, seed=2)
    oracle.draw(model.generator, seed=3)
    return model.eval()


def as_params(case: Case, model, question_tower: dict, generator: dict) -> RagParams:
    """Tensors of the model's two halves, its state or its gradients, as a tree like our parameters."""
    tower = oracle.tower_params(model.question_encoder, case.tower, question_tower)
    return jax.device_get(RagParams(tower, oracle.generator_params(case.generator, generator)))


def their_retrieval(case: Case, model) -> tuple[torch.Tensor, np.ndarray, dict[str, torch.Tensor]]:
    """Scores with their gradient, passage ids, and the generator's inputs, made in plain Python."""
    knowledge, batch, _ = data(case)
    vectors = np.asarray(knowledge.passage_vectors)
    queries = model.question_encoder(**oracle.torch_inputs(batch.question)).pooler_output
    found = np.argsort(-(queries.detach().numpy() @ vectors.T), axis=1)[:, : case.num_docs]
    doc_scores = torch.einsum("bd,bkd->bk", queries, torch.from_numpy(vectors[found]))

    def sequence(tokens: Tokens, row: int) -> list[int]:
        return np.asarray(tokens.ids)[row, : int(tokens.lengths[row])].tolist()

    pairs = [sequence(knowledge.passage_tokens, z) + sequence(batch.prompt, b) for b in range(B) for z in found[b]]
    longest = max(map(len, pairs))
    inputs = {
        "context_input_ids": torch.tensor([pair + [PAD] * (longest - len(pair)) for pair in pairs]),
        "context_attention_mask": torch.tensor([[1] * len(pair) + [0] * (longest - len(pair)) for pair in pairs]),
    }
    return doc_scores, found, inputs


class Outcome(NamedTuple):
    """Losses by objective and question, and gradients of their means."""

    losses: dict[str, np.ndarray]
    gradients: dict[str, RagParams]


@cache
def our_outcome(case: Case) -> tuple[Outcome, scoring.Forward]:
    """All objectives in one program: the forward pass once, the backward pass once for each."""
    knowledge, batch, _ = data(case)
    networks = Networks(bert.tower(case.tower), bart.generator(case.generator))

    def losses(params):
        seen = scoring.forward(networks, params, knowledge, batch, num_docs=case.num_docs, layout=InputLayout(P + L))
        arguments = seen.doc_log_prior, seen.logits, batch.targets, batch.target_mask
        each = jnp.stack([compared.ours(*arguments) for compared in OBJECTIVES.values()])
        return jnp.mean(each, axis=1), (each, seen)

    model = theirs(case)
    params = as_params(case, model, oracle.state(model.question_encoder), oracle.state(model.generator))
    gradients, (each, seen) = jax.device_get(jit(jax.jacrev(losses, has_aux=True))(params))
    return (
        Outcome(
            dict(zip(OBJECTIVES, each, strict=True)),
            {name: jax.tree.map(lambda leaf, n=n: leaf[n], gradients) for n, name in enumerate(OBJECTIVES)},
        ),
        seen,
    )


@cache
def their_outcome(case: Case) -> Outcome:
    """The same from transformers, one model for each objective."""
    losses, gradients = {}, {}
    labels = oracle.as_torch(data(case).labels)
    for name, compared in OBJECTIVES.items():
        model = theirs(case, compared.theirs, compared.epsilon)
        model.zero_grad()
        doc_scores, _, inputs = their_retrieval(case, model)
        loss = model(**inputs, doc_scores=doc_scores, decoder_input_ids=labels, labels=labels).loss
        loss.mean().backward()
        losses[name] = loss.detach().numpy()
        gradients[name] = as_params(
            case, model, oracle.gradients(model.question_encoder), oracle.gradients(model.generator)
        )
    return Outcome(losses, gradients)


each_case = pytest.mark.parametrize("case", only([CASES["three passages"]], CASES.values()), ids=CASES)
each_objective = pytest.mark.parametrize("name", OBJECTIVES)


@each_case
def test_the_same_passages_are_retrieved_with_the_same_prior_and_read_to_the_same_logits(case):
    _, seen = our_outcome(case)
    model = theirs(case)
    with torch.no_grad():
        doc_scores, found, inputs = their_retrieval(case, model)
        logits = model(**inputs, doc_scores=doc_scores, decoder_input_ids=oracle.as_torch(data(case).labels)).logits
    np.testing.assert_array_equal(seen.retrieved.rows, found)
    assert relative(seen.retrieved.scores, doc_scores) < 1e-5
    if case.num_docs > 1:  # the prior of a single passage is exactly one
        assert relative(seen.doc_log_prior, doc_scores.log_softmax(dim=1)) < 1e-5
    assert relative(seen.logits, logits.reshape(B, case.num_docs, T + 1, -1)[:, :, :-1]) < 1e-5


@each_case
@each_objective
def test_each_questions_loss_is_that_of_transformers(case, name):
    """Relative to each loss."""
    ours, expected = our_outcome(case)[0].losses[name], their_outcome(case).losses[name]
    assert ours.shape == (B,)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=0)


@each_case
@each_objective
def test_every_parameters_gradient_is_that_of_transformers(case, name):
    """Norm of the difference over the norm, for each tensor; those that are zero by theory against the whole's norm."""
    ours, expected = our_outcome(case)[0].gradients[name], their_outcome(case).gradients[name]
    for mine, reference in zip(ours[:2], expected[:2], strict=True):  # the question tower, the generator
        scale = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(reference)))
        for path, error, norm in differences(mine, reference):
            if is_zero_by_theory(path):
                assert max(error, norm) <= 1e-6 * scale, path
            else:
                assert error <= 1e-3 * norm, path


@pytest.mark.parametrize("case", first(1, [CASES["three passages"], CASES["five passages"]]), ids=["three", "five"])
def test_the_gradient_reaches_every_other_parameter(case):
    """So that the comparison is not one of zeros with zeros."""
    for name in OBJECTIVES:
        for tree in their_outcome(case).gradients[name][:2]:
            leaves = flatten_dict(tree, sep="/")
            assert all(is_zero_by_theory(path) or np.linalg.norm(leaf) > 0 for path, leaf in leaves.items())


@pytest.mark.extended
@pytest.mark.parametrize("name", ["token", "sequence"])
def test_one_passage_teaches_the_question_tower_nothing(name):
    gradient = our_outcome(CASES["one passage"])[0].gradients[name]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient.question_tower))


def differences(ours, reference):
    """For each tensor: its path, the norm of the difference and the norm that transformers has."""
    flat = flatten_dict(reference, sep="/")
    for path, leaf in flatten_dict(ours, sep="/").items():
        yield path, np.linalg.norm(leaf - flat[path]), np.linalg.norm(flat[path])


def is_zero_by_theory(path: str) -> bool:
    """A key's bias shifts all scores of a query alike; the final bias is not trained."""
    return path.endswith("key/bias") or path == "final_logits_bias"


# The losses alone, on random logits: where transformers differs from the paper, and this library does not.

K, V = 4, 9


@cache
def sequence_model() -> RagSequenceForGeneration:
    """A model for its `get_nll` only."""
    return theirs(Case(K, CASES["one passage"].tower, CASES["one passage"].generator), RagSequenceForGeneration)


def random_logits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[B, K]` and logits `[B, K, T, V]`."""
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(B, K)).astype(np.float32), 2 * rng.normal(size=(B, K, T, V)).astype(np.float32)


def their_sequence_loss(scores, logits, targets, rows=slice(None), **settings) -> np.ndarray:
    """transformers' RAG-Sequence loss for the chosen rows, computed together."""
    labels = np.concatenate([np.full((B, 1), BOS), targets], axis=1)
    padded = np.concatenate([logits, np.zeros_like(logits[:, :, :1])], axis=2)[rows]
    arguments = torch.from_numpy(padded.reshape(-1, T + 1, V)), torch.from_numpy(scores[rows])
    return sequence_model().get_nll(*arguments, oracle.as_torch(labels[rows]), n_docs=K, **settings).numpy()


def our_sequence_loss(scores, logits, targets, mask=None, rows=slice(None), label_smoothing=0.0) -> np.ndarray:
    """Ours for the chosen rows, computed together."""
    mask = targets != PAD if mask is None else mask
    arrays = [jnp.asarray(each[rows]) for each in (scores, logits, targets, mask)]
    return np.asarray(sequence_loss(label_smoothing)(*arrays))


@cache
def sequence_loss(label_smoothing: float):
    def loss(scores, *rest):
        return rag_sequence_loss(likelihood.doc_log_prior(scores), *rest, label_smoothing=label_smoothing)

    return jit(loss)


def some_targets(first: tuple[int, ...] = ()) -> np.ndarray:
    """Targets of T, 3 and 4 tokens; `first` are the rows that start with BOS."""
    targets = np.random.default_rng(5).integers(oracle.FIRST_WORD, V, (B, T)).astype(np.int32)
    targets[1, 3:], targets[2, 4:] = PAD, PAD
    targets[list(first), 0] = BOS
    return targets


def test_sequence_smoothing_counts_the_prior_once_where_transformers_counts_it_v_times():
    scores, logits = random_logits(1)
    targets = some_targets()
    mask = targets != PAD
    log_probs = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(axis=3, keepdims=True))
    prior = scores.astype(np.float64) - np.log(np.exp(scores.astype(np.float64)).sum(axis=1, keepdims=True))
    chosen = (np.take_along_axis(log_probs, targets[:, None, :, None], axis=3)[..., 0] * mask[:, None]).sum(axis=2)
    words = (log_probs.sum(axis=3) * mask[:, None]).sum(axis=2)

    def formula(times: int) -> np.ndarray:
        nll, uniform = (-np.logaddexp.reduce(joint, axis=1) for joint in (chosen + prior, words + times * prior))
        return (1 - EPSILON) * nll + EPSILON / V * uniform

    found = our_sequence_loss(scores, logits, targets, label_smoothing=EPSILON)
    expected = their_sequence_loss(scores, logits, targets, epsilon=EPSILON)
    np.testing.assert_allclose(found, formula(1), rtol=1e-5)
    np.testing.assert_allclose(expected, formula(V), rtol=1e-5)
    assert np.abs(found - expected).min() > 0.01


def test_a_target_of_one_token_keeps_the_prior_that_transformers_loses():
    scores, logits = random_logits(2)
    targets = np.full((B, T), PAD, np.int32)
    targets[:, 0] = EOS
    chosen = np.exp(logits[:, :, 0, EOS].astype(np.float64)) / np.exp(logits[:, :, 0].astype(np.float64)).sum(axis=2)
    prior = np.exp(scores.astype(np.float64))
    prior /= prior.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(our_sequence_loss(scores, logits, targets), -np.log((prior * chosen).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(their_sequence_loss(scores, logits, targets), -np.log(chosen.sum(1)), rtol=1e-5)


def test_leaving_bos_out_of_the_score_is_a_matter_of_the_mask():
    scores, logits = random_logits(3)
    targets = some_targets(first=(0, 1, 2))
    expected = their_sequence_loss(scores, logits, targets, exclude_bos_score=True)
    mask = (targets != PAD) & (targets != BOS)
    np.testing.assert_allclose(our_sequence_loss(scores, logits, targets, mask), expected, rtol=1e-5)


def test_rows_are_independent_where_transformers_lets_one_without_bos_change_the_others():
    scores, logits = random_logits(4)
    targets = some_targets(first=(0, 1))
    mask = (targets != PAD) & (targets != BOS)
    some = slice(0, 2)
    alone = their_sequence_loss(scores, logits, targets, some, exclude_bos_score=True)
    together = their_sequence_loss(scores, logits, targets, exclude_bos_score=True)[some]
    assert np.abs(alone - together).min() > 0.01
    ours_alone = our_sequence_loss(scores, logits, targets, mask, some)
    np.testing.assert_allclose(ours_alone, alone, rtol=1e-5)
    np.testing.assert_allclose(our_sequence_loss(scores, logits, targets, mask)[some], ours_alone, rtol=1e-6)
