"""Which passage each answer token came from: figure 2 of the paper, drawn for one of a demo's questions."""

from collections.abc import Sequence
from pathlib import Path

from rag_jax.data.questions import Question
from rag_jax.evaluation.figures import token_posterior
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.pipeline.answers import Answer
from rag_jax.rag import RAG

NUMERIC = ("population-alternate", "latitude-alternate")


def draw_token_posterior(rag: RAG, test: Sequence[Question], path: Path) -> tuple[Question, Answer] | None:
    """Draw the city that was found with the least certainty and answered correctly; None if no answer is correct.

    Only questions that ask for a number under an alternate name take part: their retrieval is the least certain.
    """
    questions = [question for question in test if question.id.endswith(NUMERIC)]
    answers = rag.answer([question.question for question in questions], num_docs=5)
    correct = [
        (question, answer)
        for question, answer in zip(questions, answers, strict=True)
        if exact_match(answer.text, question.answers)
    ]
    if not correct:
        return None
    return draw_flattest(correct, path)


def draw_flattest(answered: Sequence[tuple[Question, Answer]], path: Path) -> tuple[Question, Answer]:
    """Draw the answer with the flattest prior, whose tokens have most to decide; returns it with its question."""
    question, answer = min(answered, key=lambda pair: pair[1].passages[0].log_prior)
    token_posterior(question.question, answer, path)
    return question, answer
