"""A moderator: here a trained model, whose categories are the colours of towns."""

import dataclasses
import json
import logging
from hashlib import sha256

import numpy as np
import pytest

from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.moderation import pieces
from rag_jax.moderation.calibration import Calibration
from rag_jax.moderation.categories import Categories, Category
from rag_jax.moderation.moderator import Moderator
from world import COLOURS

COLOURED = Categories(tuple(Category(name) for name in COLOURS[1:]), COLOURS[0])


@pytest.fixture(scope="module")
def asked(towns) -> list[str]:
    return [question.question for question in read_questions(towns.data.evaluation)][:12]


@pytest.fixture(scope="module")
def moderator(trained) -> Moderator:
    return Moderator(trained[0], COLOURED)


def with_categories(moderator: Moderator, **options: tuple[float, str]) -> Moderator:
    """With thresholds and policies by name; other categories pass."""
    changed = [Category(name, "", *options.get(name, (1.0, "pass"))) for name in COLOURS[1:]]  # type: ignore[arg-type]
    return Moderator(moderator.rag, Categories(tuple(changed), COLOURS[0]))


def test_probabilities_are_label_likelihoods_normalised_over_the_categories(moderator, asked):
    for text, decision in zip(asked, moderator(asked), strict=True):
        scores = np.array([moderator.rag.log_likelihood(text, name) for name in COLOURS])
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose([*decision.probabilities.values()], expected, atol=1e-4)
        assert [*decision.probabilities] == list(COLOURS)


def test_the_category_whose_threshold_is_reached_decides(moderator, asked):
    for decision in moderator(asked):
        name, probability = max(decision.probabilities.items(), key=lambda each: each[1])
        if name == COLOURS[0] or probability < 0.5:
            assert (decision.category, decision.threshold, decision.policy) == (COLOURS[0], None, "pass")
        else:
            assert (decision.category, decision.threshold, decision.policy) == (name, 0.5, "block")
        assert decision.probability == decision.probabilities[decision.category]


def test_the_strictest_policy_comes_first_then_the_most_likely_category(moderator, asked):
    strict = with_categories(moderator, blue=(0.0, "flag"), green=(0.0, "block"), white=(0.0, "block"))
    for decision in strict(asked):
        assert decision.policy == "block"
        assert decision.category == max(("green", "white"), key=decision.probabilities.__getitem__)
    assert {each.policy for each in with_categories(moderator, blue=(0.0, "flag"))(asked)} == {"flag"}
    assert {each.policy for each in with_categories(moderator)(asked)} == {"pass"}


@pytest.mark.extended
def test_one_text_has_one_decision_and_a_stream_may_skip(moderator, asked):
    decisions = moderator(asked)
    assert moderator(asked[3]).probabilities == pytest.approx(decisions[3].probabilities, abs=1e-5)
    found = dict(moderator.stream(asked, skip={0, 2}, batch_size=2))
    assert found.keys() == {*range(len(asked))} - {0, 2}
    assert all(found[number].sha256 == decisions[number].sha256 for number in found)
    assert moderator([]) == []


def test_a_decision_is_logged_without_the_text(moderator, asked, caplog):
    with caplog.at_level(logging.INFO, "rag_jax.moderation"):
        decision = moderator(asked[0])
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "rag_jax.moderation"]
    assert line == json.loads(json.dumps(decision._asdict()))
    assert line["sha256"] == sha256(asked[0].encode()).hexdigest()
    assert {"category", "probability", "threshold", "policy", "role"} <= line.keys()


@pytest.fixture(scope="module")
def long(moderator, asked) -> str:
    text = " ".join(asked)
    assert not moderator.rag.components.example_tokenizer.fits(text)
    return text


def test_a_long_text_is_read_in_pieces_and_the_least_acceptable_decides(moderator, long):
    flags = with_categories(moderator, **dict.fromkeys(COLOURS[1:], (0.0, "flag")))
    parts = flags(pieces.split(long, moderator.rag.components.example_tokenizer.fits))
    worst = min(parts, key=lambda each: each.probabilities[COLOURS[0]])
    assert len(parts) > 2
    assert flags(long).probabilities == pytest.approx(worst.probabilities, abs=1e-5)


def test_the_strictest_decision_on_a_piece_counts(moderator, long):
    """A piece that is only flagged, however likely, does not hide another that is blocked."""
    parts = moderator(pieces.split(long, moderator.rag.components.example_tokenizer.fits))
    name = COLOURS[2]
    highest = max(each.probabilities[name] for each in parts)
    strict = with_categories(moderator, **{COLOURS[1]: (0.0, "flag"), name: (0.99 * highest, "block")})
    split = strict(pieces.split(long, moderator.rag.components.example_tokenizer.fits))
    assert {each.policy for each in split} == {"flag", "block"}
    assert (strict(long).policy, strict(long).category) == ("block", name)


def test_calibration_on_labelled_texts_raises_their_likelihood(moderator, towns):
    questions = read_questions(towns.data.train)[:64]
    texts, labels = [each.question for each in questions], [each.answers[0] for each in questions]
    fitted = moderator.calibrated(texts, labels)

    def likelihood(judge: Moderator) -> float:
        return sum(np.log(each.probabilities[label]) for each, label in zip(judge(texts), labels, strict=True))

    assert fitted.calibration != Calibration()
    assert likelihood(fitted) > likelihood(moderator)
    assert fitted._calibration("answer") == fitted.calibration, "all roles have one prompt"
    reflecting = dataclasses.replace(fitted, reflects=True, calibrated_for="question")
    reflecting._by_role["answer"] = Calibration(1.0, (0.0,) * len(moderator.categories.names))
    assert reflecting._calibration("question") == fitted.calibration
    assert reflecting._calibration("answer") == reflecting._by_role["answer"], "whose prompt is another one"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda each: each(["x", " "]), "^text 2 is empty; write one, or leave it out$"),
        (lambda each: each("x", "reader"), "^role 'reader': give question, answer, passage$"),
        (lambda each: each.calibrated(["x"], ["pink"]), "^label 'pink' is not one of the categories red, blue"),
        (lambda each: each.calibrated(["x"], []), "^1 texts and 0 labels; give one label for each$"),
        (lambda each: Moderator(each.rag, Categories((Category("unacceptable"),), "red")), "more than max_target = 4"),
        (
            lambda each: Moderator(each.rag, COLOURED, Calibration(1.0, (0.0, 1.0))),
            "^calibration: a bias of 2 labels for 6 categories; give one for each$",
        ),
    ],
)
def test_what_cannot_be_moderated_is_refused(moderator, call, told):
    with pytest.raises(InputError, match=told):
        call(moderator)


def test_a_generator_with_an_encoder_is_not_asked_zero_shot(trained):
    with pytest.raises(InputError, match=r"^generator\.system_prompt: not supported by bart"):
        Moderator.self_reflecting(trained[0])
