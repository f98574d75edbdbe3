"""Which scores there are follows from what is known of the questions and of the predictions."""

import math

import numpy as np
import pytest

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.predictions import Prediction
from rag_jax.evaluation.scores import Scores, abstention, correct_answers, joined, score
from rag_jax.pipeline.answers import RetrievedPassage

PARIS, LYON = Passage("1", "Paris", "It has 7 people.", "france"), Passage("2", "Lyon", "It has 9 people.", "lyon")
READ = RetrievedPassage("1", "Paris", "It has 7 people.", -0.1, 0.9)
QUESTIONS = [Question("a", "how many in Paris", ("7", "seven")), Question("b", "how many in Lyon", ("9",))]
ANSWERED = [Prediction("a", "The 7"), Prediction("b", "about 9")]


def names(scores: Scores) -> set[str]:
    return set(scores.each) | set(scores.overall) | set(scores.repetition)


def test_answers_alone_have_answer_scores() -> None:
    scores = score(QUESTIONS, ANSWERED)
    assert names(scores) == {"exact_match", "f1", "contains"}
    assert scores.each["exact_match"].tolist() == [1, 0]
    assert scores.each["contains"].tolist() == [1, 1]


def test_log_probabilities_add_calibration() -> None:
    predictions = [each._replace(log_prob=math.log(0.5)) for each in ANSWERED]
    scores = score(QUESTIONS, predictions)
    assert scores.each["brier"].tolist() == pytest.approx([0.25, 0.25])
    assert scores.overall["expected_calibration_error"].statistic(np.arange(2)) == pytest.approx(0)
    assert {"aurc"} <= names(scores)
    assert "brier" not in score(QUESTIONS, [predictions[0], ANSWERED[1]]).each, "one of them is not known"


def test_passages_found_add_recalls_up_to_the_depth() -> None:
    found = [each._replace(retrieved=(LYON, PARIS)) for each in ANSWERED]
    scores = score(QUESTIONS, found, depth=5)
    assert scores.each["answer_recall@1"].tolist() == [0, 1]
    assert names(scores) == {"exact_match", "f1", "contains", "answer_recall@1"}
    gold = [QUESTIONS[0]._replace(positive_ids=("1",)), QUESTIONS[1]]
    scores = score(gold, found, depth=5)
    assert scores.each["mrr"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
    assert {"recall@1", "ndcg@2", "map"} <= names(scores)
    assert "recall@5" not in scores.each, "two passages were found"
    unknown = [each._replace(retrieved=(Passage("1", "", ""),)) for each in ANSWERED]
    assert "answer_recall@1" not in score(gold, unknown).each, "their texts are not known"


def test_evidence_adds_documents_and_kilt() -> None:
    needed = [QUESTIONS[0]._replace(evidence=(("france",),)), QUESTIONS[1]]
    found = [each._replace(retrieved=(PARIS, LYON)) for each in ANSWERED]
    scores = score(needed, found, depth=1)
    assert scores.each["document_recall@1"].tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert scores.each["r_precision"].tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert scores.each["kilt_exact_match"].tolist() == pytest.approx([1, math.nan], nan_ok=True)


def test_titles_are_no_evidence_where_none_is_known() -> None:
    """As in KILT's guesses, which name documents."""
    needed = [each._replace(evidence_titles=(("Paris",),)) for each in QUESTIONS]
    found = [each._replace(retrieved=(Passage("france", "", "", "france"),)) for each in ANSWERED]
    assert "document_recall@1" not in score(needed, found).each
    titled = [each._replace(retrieved=(PARIS,)) for each in ANSWERED]
    assert score(needed, titled).each["document_recall@1"].tolist() == [1, 1]


def test_a_corpus_score_rests_on_the_questions_that_have_a_text() -> None:
    asked = [QUESTIONS[0], QUESTIONS[1]._replace(answers=("",))]
    assert score(asked, ANSWERED, task="abstractive").overall["corpus_bleu_1"].questions == 1


def test_evidence_is_scored_without_gold_answers() -> None:
    needed = [QUESTIONS[0]._replace(evidence=(("france",),)), Question("b", "?", (), ("2",), evidence=(("lyon",),))]
    scores = score(needed, [each._replace(retrieved=(PARIS, LYON)) for each in ANSWERED])
    assert scores.each["r_precision"].tolist() == [1, 0]
    assert scores.each["kilt_exact_match"].tolist() == pytest.approx([1, math.nan], nan_ok=True)


def test_a_title_is_no_text_that_holds_an_answer() -> None:
    found = [each._replace(retrieved=(PARIS,)) for each in ANSWERED]
    asked = [each._replace(answers=("Paris",)) for each in QUESTIONS]
    assert score(asked, found).each["answer_recall@1"].tolist() == [0, 0]


def test_citations_of_passages_that_are_not_known_are_not_scored() -> None:
    unknown = RetrievedPassage("2", "", "", -2.0, 0.99)
    for passages, recall in (((READ,), 1), ((unknown, READ), math.nan)):
        scores = score(QUESTIONS, [ANSWERED[0]._replace(passages=passages, answer="7"), ANSWERED[1]])
        found = scores.each.get("citation_recall", np.full(2, math.nan))
        assert found.tolist() == pytest.approx([recall, math.nan], nan_ok=True)


def test_posteriors_add_citations() -> None:
    scores = score(QUESTIONS, [ANSWERED[0]._replace(passages=(READ,), answer="7"), ANSWERED[1]])
    assert scores.each["citation_recall"].tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert scores.each["citation_precision"].tolist() == pytest.approx([1, math.nan], nan_ok=True)


def test_regular_expressions_are_matched_and_have_no_exact_match() -> None:
    regex = [Question("a", "when", ("19[67]9",), regex=True), Question("b", "who", ("x",))]
    scores = score(regex, [Prediction("a", "in 1969"), Prediction("b", "x")])
    assert scores.each["regex_match"].tolist() == pytest.approx([0, math.nan], nan_ok=True)
    assert scores.each["regex_search"].tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert scores.each["exact_match"].tolist() == pytest.approx([math.nan, 1], nan_ok=True)


def test_labels_have_accuracy_instead_of_exact_match() -> None:
    questions = [Question("a", "c", ("yes",)), Question("b", "d", ("no",))]
    scores = score(questions, [Prediction("a", "yes"), Prediction("b", "yes")], labels=("yes", "no"))
    assert names(scores) == {"accuracy", "macro_f1"}
    assert scores.overall["macro_f1"].statistic(np.arange(2)) == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("odd", [("maybe", "maybe"), ("maybe", "perhaps")])
def test_macro_f1_is_over_the_labels_whatever_else_is_predicted(odd: tuple[str, str]) -> None:
    gold, given = ("yes", "no", "yes", "no"), ("yes", "no", *odd)
    questions = [Question(str(number), "c", (label,)) for number, label in enumerate(gold)]
    scores = score(
        questions, [Prediction(str(number), each) for number, each in enumerate(given)], labels=("yes", "no")
    )
    assert scores.overall["macro_f1"].statistic(np.arange(4)) == pytest.approx(2 / 3)


def test_labels_with_evidence_have_the_scores_of_kilt_and_no_citations() -> None:
    questions = [Question("a", "c", ("yes",), evidence=(("france",),)), Question("b", "d", ("no",), evidence=(("x",),))]
    predictions = [Prediction(id, "yes", passages=(READ,), retrieved=(PARIS,)) for id in ("a", "b")]
    scores = score(questions, predictions, labels=("yes", "no"))
    assert scores.each["kilt_accuracy"].tolist() == [1, 0]
    assert not {"citation_recall", "answer_recall@1"} & names(scores)


def test_longer_texts_are_scored_as_texts() -> None:
    scores = score(QUESTIONS, ANSWERED, task="abstractive")
    assert {"rouge_l", "bleu_1", "corpus_bleu_1", "distinct_trigrams", "distinct_trigrams_of_gold"} <= names(scores)
    assert "q_bleu_1" in score(QUESTIONS, ANSWERED, task="question-generation").each


def test_an_abstractive_task_needs_gold_texts() -> None:
    for odd in (Question("c", "x", (), ("1",)), Question("c", "x", ("a|b",), regex=True)):
        with pytest.raises(InputError, match='question "c": has no gold text, which --task abstractive needs'):
            score([*QUESTIONS, odd], [*ANSWERED, Prediction("c", "x")], task="abstractive")


def test_a_recall_is_no_deeper_than_the_rankings() -> None:
    found = [each._replace(retrieved=(LYON, PARIS)) for each in ANSWERED]
    assert "answer_recall@5" not in score(QUESTIONS, found).each
    assert "answer_recall@1" in score(QUESTIONS, found).each


def test_documents_whose_titles_are_not_known_are_not_missed() -> None:
    needed = [each._replace(evidence_titles=(("Paris",),)) for each in QUESTIONS]
    unknown = [each._replace(retrieved=(Passage("1", "", ""),)) for each in ANSWERED]
    assert "document_recall@1" not in score(needed, unknown).each


def test_right_answers_are_right_by_exact_match_or_by_a_whole_match() -> None:
    questions = [*QUESTIONS, Question("c", "when", ("19[67]9",), regex=True)]
    predictions = [*ANSWERED, Prediction("c", "1969")]
    assert correct_answers(questions, predictions, False).tolist() == [1, 0, 1]
    assert "brier" in score(questions, [each._replace(log_prob=-1.0) for each in predictions]).each


def test_withheld_answers_are_empty_and_have_an_effect() -> None:
    questions = [*QUESTIONS, Question("c", "how many in Atlantis", ("",))]
    predictions = [Prediction("a", "7", -0.1), Prediction("b", "8", -3.0), Prediction("c", "5", -4.0)]
    correct = correct_answers(questions, predictions, False)
    withheld, effect = abstention(questions, predictions, correct, -3.5)
    assert [each.answer for each in withheld] == ["7", "8", ""]
    assert correct.tolist() == effect["always_answering"].tolist() == [1, 0, 0]
    assert score(questions, withheld).each["exact_match"].tolist() == effect["abstaining"].tolist() == [1, 0, 1]


def test_of_two_scores_with_the_same_name_the_later_counts() -> None:
    assert joined([Scores({"f1": np.zeros(2)}), Scores({"f1": np.ones(2)})]).each["f1"].tolist() == [1, 1]
