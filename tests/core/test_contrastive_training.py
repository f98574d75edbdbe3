"""The contrastive training step with towers small enough to know their gradients, on one device and on eight."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import cache, lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from handmade import bag_of_words, close, difference, noisy_bag_of_words, norm, normal, tokens
from rag_jax.core import contrastive, contrastive_training, trainable, training
from rag_jax.core.contrastive_training import ContrastiveRecipe
from rag_jax.types import BiEncoderParams, ContrastiveBatch, Tokens
from suites import first

B, M, D, V = 4, 8, 4, 11
RATE = 0.25
SUPPORT = Path(__file__).parents[1] / "support"


def batch(seed: int = 0) -> ContrastiveBatch:
    """Two groups of passages, an accidental hit among them."""
    draw = np.random.default_rng(seed)
    candidates = np.ones((B, M), bool)
    candidates[0, 1] = False
    questions, groups = tokens(draw, B, 3), (tokens(draw, M // 2, 4), tokens(draw, M // 2, 6))
    return ContrastiveBatch(questions, groups, draw.permutation(M).astype(np.int32), candidates, normal(draw, M))


def both_towers() -> BiEncoderParams:
    draw = np.random.default_rng(1)
    return BiEncoderParams(normal(draw, V, D), normal(draw, V, D))


def shared_tower() -> BiEncoderParams:
    return BiEncoderParams(both_towers().question_tower, None)


def questions_only(params: BiEncoderParams) -> BiEncoderParams:
    return jax.tree.map(lambda _: True, params)._replace(passage_tower=False)


OBJECTIVE = contrastive.objective(temperature=0.5)
DESCENT = optax.sgd(RATE)
TOWERS = {"both": both_towers, "shared": shared_tower}


def recipe(
    tower=bag_of_words, optimizer=DESCENT, chunk=None, passage_tower=None, objective=OBJECTIVE, **settings
) -> ContrastiveRecipe:
    return ContrastiveRecipe(tower, passage_tower or tower, objective, optimizer, chunk, **settings)


def start(made_of: ContrastiveRecipe, params: BiEncoderParams | None = None) -> training.TrainState:
    return training.init(made_of, params or both_towers(), jax.random.key(3))


@cache
def step(made_of: ContrastiveRecipe):
    return jax.jit(partial(contrastive_training.train_step, made_of))


def one_step(made_of: ContrastiveRecipe, params: BiEncoderParams | None = None):
    """Parameters before and after, and the metrics."""
    state = start(made_of, params)
    after, metrics = step(made_of)(state, batch())
    return state.params, *jax.device_get((after.params, metrics))


def in_order(given: ContrastiveBatch) -> Tokens:
    """All passages in one group, padded to the longest and in the order of the candidates' columns."""
    longest = max(group.ids.shape[1] for group in given.passages)
    ids = [np.pad(group.ids, ((0, 0), (0, longest - group.ids.shape[1]))) for group in given.passages]
    lengths = [group.lengths for group in given.passages]
    return Tokens(np.concatenate(ids)[given.place], np.concatenate(lengths)[given.place])


@jax.jit
def loss_and_gradient(params: BiEncoderParams):
    """Written apart from the step: one padded group of passages, and no chunks."""
    given = batch()

    def loss(params):
        passage_tower = params.question_tower if params.passage_tower is None else params.passage_tower
        vectors = bag_of_words(params.question_tower, given.questions), bag_of_words(passage_tower, in_order(given))
        return jnp.mean(OBJECTIVE(*vectors, given.candidates, given.log_q))

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("chunk", first(1, [2, None]))
@pytest.mark.parametrize("towers", TOWERS)
def test_the_step_descends_the_mean_loss(towers, chunk):
    before, after, metrics = one_step(recipe(chunk=chunk), TOWERS[towers]())
    loss, gradient = jax.device_get(loss_and_gradient(before))
    close(metrics.loss, loss)
    jax.tree.map(close, jax.tree.map(lambda each: each / RATE, difference(before, after)), gradient)
    close(metrics.grad_norm, norm(gradient))


def test_the_accuracy_of_the_batch_is_reported():
    before, _, metrics = one_step(recipe())
    given = batch()
    questions = np.asarray(bag_of_words(before.question_tower, given.questions))
    scores = questions @ np.asarray(bag_of_words(before.passage_tower, in_order(given))).T
    masked = np.where(given.candidates, scores, -np.inf)
    close(metrics.accuracy, np.mean([row.argmax() == i for i, row in enumerate(masked)]))


def test_training_raises_the_accuracy():
    made_of = recipe(optimizer=optax.adam(0.1), chunk=2)
    state, seen = start(made_of), []
    for _ in range(40):
        state, metrics = step(made_of)(state, batch())
        seen.append(metrics)
    assert seen[-1].loss < 0.5 * seen[0].loss
    assert seen[-1].accuracy > seen[0].accuracy


def test_each_step_draws_its_own_dropout():
    made_of = recipe(noisy_bag_of_words)

    def loss(number: int) -> float:
        return float(step(made_of)(start(made_of)._replace(step=jnp.int32(number)), batch())[1].loss)

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


@pytest.mark.extended
def test_questions_and_each_group_of_passages_have_dropout_of_their_own():
    keys = []

    def seen(params, rows, key=None):
        keys.append(key)
        return bag_of_words(params, rows)

    contrastive_training.train_step(recipe(seen), start(recipe(seen)), batch())
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == len(keys) == 3


@jax.custom_vjp
def without_derivative(params, ids, lengths):
    return bag_of_words(params, Tokens(ids, lengths))


def _fail(*_):
    raise AssertionError("a frozen tower was differentiated")


without_derivative.defvjp(_fail, _fail)


@pytest.mark.parametrize("chunk", first(1, [2, None]))
def test_a_frozen_passage_tower_is_not_differentiated_and_has_no_dropout(chunk):
    def constant(params, rows, key=None):
        assert key is None
        return without_derivative(params, *rows)

    made_of = recipe(passage_tower=constant, chunk=chunk, trainable=questions_only)
    before, after, metrics = one_step(made_of)
    loss, gradient = jax.device_get(loss_and_gradient(before))
    close(metrics.loss, loss)
    close((before.question_tower - after.question_tower) / RATE, gradient.question_tower)
    np.testing.assert_array_equal(after.passage_tower, before.passage_tower)


@pytest.mark.parametrize(
    ("chunk", "mask", "passes"), [(None, trainable.everything, 1), (2, trainable.everything, 2), (2, questions_only, 1)]
)
def test_a_second_pass_is_for_chunks_of_a_trained_tower_only(chunk, mask, passes):
    """Each pass of a tower takes one cube root, whose derivative is a function of the root."""

    def cube_root(params, rows, key=None):
        return bag_of_words(jax.lax.cbrt(params), rows)

    made_of = recipe(passage_tower=cube_root, chunk=chunk, trainable=mask)
    program = jax.make_jaxpr(partial(contrastive_training.train_step, made_of))(start(made_of), batch())
    assert len(re.findall(r"\bcbrt\b", str(program))) == passes * len(batch().passages)


@pytest.mark.parametrize("chunk", first(1, [2, None]))
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(chunk):
    def broken(*given):
        return OBJECTIVE(*given) + jnp.inf

    made_of = recipe(objective=broken, optimizer=optax.adam(0.1), chunk=chunk)
    state = start(made_of)
    for number in (1, 2):
        state, metrics = step(made_of)(state, batch())
        assert (int(metrics.skipped), int(metrics.skipped_in_a_row), int(state.step)) == (number, number, number)
    jax.tree.map(np.testing.assert_array_equal, state.params, both_towers())
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, start(made_of).opt_state)
    well = recipe(optimizer=optax.adam(0.1), chunk=chunk)
    state, metrics = step(well)(state, batch())
    assert (int(metrics.skipped), int(metrics.skipped_in_a_row)) == (2, 0)
    jax.tree.map(close, state.params, step(well)(start(well), batch())[0].params)


def test_a_chunk_that_does_not_divide_a_group_is_refused():
    with pytest.raises(ValueError, match="4 rows are not divisible into chunks of 3"):
        contrastive_training.train_step(recipe(chunk=3), start(recipe()), batch())


def started(*arguments: object) -> subprocess.Popen[str]:
    """`contrastive_devices.py`, under way."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
    command = [sys.executable, str(SUPPORT / "contrastive_devices.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What the process wrote."""
    said, complained = process.communicate(timeout=900)
    assert process.returncode == 0, complained
    return said


@lru_cache
def eight_devices() -> dict:
    return json.loads(ended(started()).splitlines()[-1])


def assert_same(found: dict[str, list], expected: dict[str, list]) -> None:
    assert expected["losses"][-1] < expected["losses"][0]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(found["accuracies"], expected["accuracies"], atol=1e-6)
    np.testing.assert_allclose(found["parameters"], expected["parameters"], atol=1e-5)


@pytest.mark.extended
@pytest.mark.parametrize("name", ["", ", chunks"])
def test_eight_devices_train_as_one_does(name):
    assert eight_devices()["devices"] == 8
    assert_same(eight_devices()["mesh" + name], eight_devices()["one" + name])


@pytest.mark.slow
def test_two_processes_of_four_devices_train_as_one_device_does():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    said = [ended(process) for process in [started(address, 0), started(address, 1)]]
    report = json.loads(said[0].splitlines()[-1])
    assert report["devices"] == 8
    for name in ("", ", chunks"):
        assert_same(report["mesh" + name], eight_devices()["one" + name])
