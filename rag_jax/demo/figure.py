"""Which passage each answer token came from: figure 2 of the paper, drawn for one of a demo's questions."""

from collections.abc import Sequence

from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import Question
from rag_jax.evaluation.figures import as_png, token_posteriors
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.pipeline.answers import Answer
from rag_jax.rag import RAG

NUMERIC = ("population-alternate", "latitude-alternate")


def draw_token_posterior(
    rag: RAG, test: Sequence[Question], folder: OwnFolder, name: str
) -> tuple[Question, Answer] | None:
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
    return draw_flattest(correct, folder, name)


def draw_flattest(answered: Sequence[tuple[Question, Answer]], folder: OwnFolder, name: str) -> tuple[Question, Answer]:
    """Draw the answer with the flattest prior, whose tokens have most to decide; returns it with its question.

    The folder is claimed for the figure. Raises `InputError` as `OwnFolder.write`.
    """
    question, answer = min(answered, key=lambda pair: pair[1].passages[0].log_prior)
    folder.claim()
    folder.write({name: as_png(token_posteriors(question.question, answer))})
    return question, answer
