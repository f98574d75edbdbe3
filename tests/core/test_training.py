"""The training step with networks small enough to know their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
from handmade import (
    CLIP,
    CLIPPED,
    NO_GOLD,
    RATE,
    B,
    D,
    K,
    N,
    T,
    V,
    bag_of_words,
    batch,
    close,
    difference,
    forward,
    knowledge,
    log_likelihood,
    models,
    noisy_bag_of_words,
    norm,
    one_step,
    paper,
    rag_params,
    recipe,
    seen,
    start,
    step,
)
from rag_jax.core import losses, step_metrics, training
from rag_jax.core.reading import InputLayout
from rag_jax.types import Generator, Networks, PackedInputs, SearchResults
from suites import first


@models
def test_training_lowers_the_loss(model):
    state, train = start(recipe(model)), step(recipe(model))
    losses_seen = []
    for _ in range(25):
        state, metrics = train(state, knowledge(), batch(), NO_GOLD)
        losses_seen.append(float(metrics.loss))
    assert losses_seen[-1] < 0.8 * losses_seen[0]


@models
def test_the_tower_learns_posterior_minus_prior_of_each_passages_vector(model):
    prior, _, _, mask = paper()
    if model == "sequence":
        wanted = naive.sequence_posterior(*paper()) - prior
    else:
        wanted = np.sum((naive.token_posterior(*paper()) - prior[:, :, None]) * mask[:, None, :], axis=2)
    vectors, question = knowledge().passage_vectors[seen().retrieved.rows], batch().question
    expected = np.zeros((V, D))
    for b in range(B):
        pull = sum(wanted[b, k] * vectors[b, k] for k in range(K)) / B  # on the question's vector
        for word in question.ids[b, : question.lengths[b]]:
            expected[word] += pull / question.lengths[b]
    before, after, _ = one_step(recipe(model))
    close((after.question_tower - before.question_tower) / RATE, expected)


def test_the_index_is_a_constant():
    def loss(known, *rest):
        return jnp.sum(log_likelihood("token")(rest[0], known, rest[1]))

    gradient = jax.jit(jax.grad(loss, allow_int=True))(knowledge(), rag_params(), batch())
    assert not np.any(gradient.passage_vectors)


def test_asking_for_more_passages_than_exist_is_asking_for_all():
    few = knowledge(count=2)
    _, all_of_them, expected = one_step(recipe(num_docs=2), few)
    _, more, metrics = one_step(recipe(num_docs=4), few)
    jax.tree.map(close, more, all_of_them)
    jax.tree.map(close, metrics, expected)


@models
def test_eval_is_the_papers_log_likelihood(model):
    expected = {"token": naive.rag_token, "sequence": naive.rag_sequence}[model](*paper())
    close(log_likelihood(model)(rag_params(), knowledge(), batch()), expected)


@models
def test_the_loss_is_told_in_nats_per_target_token(model):
    log_probs = {"token": naive.rag_token, "sequence": naive.rag_sequence}[model](*paper())
    close(one_step(recipe(model))[2].loss, -np.sum(log_probs) / np.sum(batch().target_mask))


@models
def test_the_gradients_norm_is_told(model):
    before, after, metrics = one_step(recipe(model))
    close(metrics.grad_norm, norm(difference(before, after)) / RATE)


def test_the_gradients_norm_is_told_before_clipping():
    before, after, metrics = one_step(recipe(tower=noisy_bag_of_words, optimizer=CLIPPED))
    close(norm(difference(before, after)), CLIP, rtol=1e-2, atol=0)
    assert metrics.grad_norm > 10 * CLIP


def test_the_priors_entropy_is_told():
    prior, *_ = paper()
    close(one_step(recipe())[2].collapse.prior_entropy, np.mean([-sum(p * np.log(p) for p in row) for row in prior]))


_recall = jax.jit(step_metrics.recall)
golds = st.lists(st.integers(0, 8), max_size=3)
found = st.lists(st.integers(0, 8), min_size=4, max_size=4, unique=True)


@hypotheses.costly
@given(st.lists(st.tuples(golds, found, st.integers(0, 4)), min_size=3, max_size=3))
def test_recall_is_the_share_of_answerable_questions_with_a_gold_passage(questions):
    positives = np.array([gold + [-1] * (3 - len(gold)) for gold, _, _ in questions], np.int32)
    ids = np.array([ids[:some] + [-1] * (4 - some) for _, ids, some in questions], np.int32)
    hits = [bool(set(gold) & set(ids[:some])) for gold, ids, some in questions if gold]
    close(_recall(ids, positives), np.mean(hits) if hits else np.nan)


def test_the_step_tells_the_recall_of_what_it_retrieved():
    ids = seen().retrieved.rows
    elsewhere = next(n for n in range(N) if n not in ids[1])
    positives = np.array([[ids[0, K - 1], -1], [elsewhere, -1], [-1, -1]], np.int32)
    assert one_step(recipe(), positives=positives)[2].recall == 1 / 2


@pytest.mark.parametrize("parts", [1, B])
def test_the_step_tells_how_long_inputs_are_without_padding(parts):
    passages = knowledge().passage_tokens.lengths[np.asarray(seen().retrieved.rows)]
    expected = np.mean(np.minimum(passages + batch().prompt.lengths[:, None], 8))
    close(
        one_step(counted(recipe(), parts)._replace(layout=InputLayout(8, pack_lengths=(5,))))[2].input_tokens, expected
    )


def test_each_step_draws_its_own_dropout_and_nothing_else_is_random():
    made_of = recipe(tower=noisy_bag_of_words, optimizer=CLIPPED)

    def loss(step_number: int) -> float:
        state = start(made_of)._replace(step=jnp.int32(step_number))
        return float(step(made_of)(state, knowledge(), batch(), NO_GOLD)[1].loss)

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_the_search_is_without_dropout_and_the_prior_with_it():
    made_of, quiet = recipe(tower=noisy_bag_of_words), SearchResults(np.asarray(seen().retrieved.rows), None)
    for number in range(5):
        state = start(made_of)._replace(step=jnp.int32(number))
        searched, metrics = step(made_of)(state, knowledge(), batch(), NO_GOLD)
        given_rows, expected = step(made_of)(state, knowledge(), batch(), NO_GOLD, quiet)
        jax.tree.map(close, jax.device_get(metrics), jax.device_get(expected))
        jax.tree.map(close, jax.device_get(searched.params), jax.device_get(given_rows.params))
        assert float(metrics.loss) != float(one_step(recipe())[2].loss)


def test_a_step_counts_itself_and_keeps_its_key():
    state = start(recipe())
    after, _ = step(recipe())(state, knowledge(), batch(), NO_GOLD)
    assert (int(state.step), int(after.step)) == (0, 1)
    assert after.key == state.key


def test_every_bucket_is_compiled_once_whatever_the_knowledge():
    compiled = []

    def counted(params, question, key=None):
        compiled.append(question.ids.shape)
        return bag_of_words(params, question, key)

    made_of = recipe(tower=counted, optimizer=optax.adam(0.1))
    state, train = start(made_of), step(made_of)
    for seed in range(5):
        state, _ = train(state, knowledge(seed), batch(seed), NO_GOLD)
    assert compiled == 2 * [(B, 4)]  # the search, and what is differentiated
    for seed in range(2):
        state, _ = train(state, knowledge(seed), batch(seed, question_length=6), NO_GOLD)
    assert compiled == 2 * [(B, 4)] + 2 * [(B, 6)]


def test_rows_that_were_found_elsewhere_give_the_same_step():
    made_of = recipe()
    before, after, metrics = one_step(made_of, positives=np.asarray(seen().retrieved.rows)[:, :2])
    rows = np.asarray(seen().retrieved.rows)
    different, places = np.unique(rows, return_inverse=True)
    little = jax.tree.map(lambda stored: stored[different], knowledge())  # as a search on the host sends it
    places = places.reshape(B, K).astype(np.int32)
    state, told = step(made_of)(start(made_of), little, batch(), places[:, :2], SearchResults(places, None))
    jax.tree.map(close, jax.device_get(state.params), after)
    jax.tree.map(close, jax.device_get(told), metrics)
    assert norm(difference(before.question_tower, after.question_tower)) > 0


def test_a_prior_of_another_search_teaches_the_question_tower_nothing():
    rows = np.asarray(seen().retrieved.rows)
    scores = np.linspace(3, 1, B * K, dtype=np.float32).reshape(B, K)
    made_of = recipe()
    state, _ = step(made_of)(start(made_of), knowledge(), batch(), NO_GOLD, SearchResults(rows, scores))
    before = rag_params()
    np.testing.assert_array_equal(state.params.question_tower, before.question_tower)
    assert norm(difference(before.generator, jax.device_get(state.params.generator))) > 0
    found = jax.device_get(forward()(before, knowledge(), batch(), SearchResults(rows, scores)))
    close(np.exp(found.doc_log_prior), naive.doc_prior(scores, rows >= 0))


def counted(made_of: training.Recipe, parts: int) -> training.Recipe:
    return made_of._replace(num_microbatches=parts)


@models
def test_a_batch_in_parts_has_the_gradient_of_the_whole(model):
    whole, apart = (one_step(counted(recipe(model), parts)) for parts in (1, B))
    jax.tree.map(close, apart[1], whole[1])
    jax.tree.map(close, apart[2], whole[2])


def test_each_part_has_dropout_of_its_own():
    noisy = recipe(tower=noisy_bag_of_words)
    alike = jax.tree.map(lambda each: np.repeat(np.asarray(each)[:1], 2, axis=0), batch())
    state, gold = start(noisy), np.full((2, 1), -1, np.int32)
    after, _ = jax.jit(partial(training.train_step, counted(noisy, 2)))(state, knowledge(), alike, gold)
    once, _ = jax.jit(partial(training.train_step, counted(noisy, 1)))(state, knowledge(), alike, gold)
    assert np.any(np.asarray(after.params.question_tower) != np.asarray(once.params.question_tower))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(where):
    def broken(prior, logits, targets, mask):
        loss = losses.rag_token_loss(prior, logits, targets, mask)
        if where == "loss":
            return loss + jnp.inf
        return loss + jnp.sum(jnp.sqrt(jnp.maximum(logits - logits, 0.0)))  # zero, with an infinite slope

    made_of = recipe(optimizer=optax.adam(0.1))._replace(objective=broken)
    state = start(made_of)
    for number in (1, 2):
        state, metrics = step(made_of)(state, knowledge(), batch(), NO_GOLD)
        assert (int(metrics.skipped), int(metrics.skipped_in_a_row)) == (number, number)
    jax.tree.map(np.testing.assert_array_equal, state.params, start(made_of).params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, start(made_of).opt_state)
    assert int(state.step) == 2
    well = recipe(optimizer=optax.adam(0.1))
    state, metrics = step(well)(state, knowledge(), batch(), NO_GOLD)
    assert (int(metrics.skipped), int(metrics.skipped_in_a_row)) == (2, 0)
    jax.tree.map(close, state.params, step(well)(start(well), knowledge(), batch(), NO_GOLD)[0].params)


LARGE = {  # from finite losses and gradients, updates or parameters that are not finite, or whose squares are not
    "update of 1e37": optax.sgd(1e38),
    "update of 1e38": optax.chain(optax.scale_by_sign(), optax.scale(-1e38)),
    "infinite update": optax.chain(optax.scale_by_sign(), optax.scale(1e38), optax.scale(-1e38)),
}


@pytest.mark.parametrize("optimizer", first(1, LARGE))
@pytest.mark.parametrize("parts", [1, B])
def test_an_update_that_is_not_finite_does_not_enter_the_parameters(optimizer, parts):
    made_of = counted(recipe(optimizer=LARGE[optimizer]), parts)
    state, metrics = step(made_of)(start(made_of), knowledge(), batch(), NO_GOLD)
    assert np.isfinite([metrics.loss, metrics.grad_norm]).all()
    assert (int(metrics.skipped), int(metrics.skipped_in_a_row), int(state.step)) == (1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, state.params, start(made_of).params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, start(made_of).opt_state)


@models
@pytest.mark.parametrize(
    ("lengths", "lines"),
    [
        pytest.param((4,), 1, marks=pytest.mark.slow),
        pytest.param((5, 6), 1, marks=pytest.mark.slow),
        pytest.param((4, 5, 6, 7), 1, marks=pytest.mark.extended),
        ((4, 5, 6, 7), B),
    ],
)
def test_packed_inputs_have_the_gradient_of_padded_ones(model, lengths, lines):
    packed = recipe(model)._replace(layout=InputLayout(8, pack_lengths=lengths, num_packs=lines))
    for seed in range(4):
        given = start(recipe(model)), knowledge(seed), batch(seed), NO_GOLD
        whole, (state, metrics) = step(recipe(model))(*given), step(packed)(*given)
        jax.tree.map(close, state.params, whole[0].params)
        close(metrics.loss, whole[1].loss)


@pytest.mark.parametrize("lines", [1, B])
def test_the_shortest_length_that_holds_all_inputs_of_a_line_is_computed(lines):
    """Told by a generator that says how many tokens it has room for."""

    def read_width(params, inputs, key=None):
        rows = inputs.inputs if isinstance(inputs, PackedInputs) else inputs
        size = inputs.source.size if isinstance(inputs, PackedInputs) else rows.ids.size
        return bag_of_words(params["word"], rows) * 0.0 + size / (B * K)

    def follow(params, decoder_inputs, memory, cache=None, place=None, key=None):
        return jnp.repeat(memory[:, None, :], decoder_inputs.shape[1], axis=1), None

    def say(params, states):
        return jnp.repeat(states[:, :, :1], V, axis=2)

    widths = Generator(read_width, follow, say, lambda rows, slots: None)
    made_of = recipe()._replace(
        networks=Networks(bag_of_words, widths),
        objective=lambda prior, logits, targets, mask: logits[:, 0, 0, 0],
        layout=InputLayout(8, pack_lengths=(4, 6), num_packs=lines),
    )
    known, asked = knowledge(), batch()._replace(target_mask=np.arange(T)[None, :] < np.ones((B, 1)))
    for passage, prompt, width in [(1, 1, 4), (2, 2, 4), (3, 2, 6), (4, 2, 6), (4, 3, 8)]:
        long = known._replace(passage_tokens=known.passage_tokens._replace(lengths=np.full(N, passage, np.int32)))
        given = asked._replace(prompt=asked.prompt._replace(lengths=np.full(B, prompt, np.int32)))
        _, metrics = step(made_of)(start(made_of), long, given, NO_GOLD)
        close(metrics.loss, width)
    mixed = known._replace(passage_tokens=known.passage_tokens._replace(lengths=np.full(N, 3, np.int32)))
    given = asked._replace(prompt=asked.prompt._replace(lengths=np.asarray([1, 1, 3], np.int32)))  # 4, 4 and 6
    close(step(made_of)(start(made_of), mixed, given, NO_GOLD)[1].loss, 6)
