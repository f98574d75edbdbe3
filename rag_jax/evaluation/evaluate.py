"""Scores of a model on questions with gold answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from rag_jax.corpus.passage import Passage
from rag_jax.data import json_object
from rag_jax.data.questions import Question, fingerprint
from rag_jax.data.validation import Share
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import exact_match, f1, recall_at_k
from rag_jax.evaluation.metrics.ranking import DEPTHS, answer_recall_scores
from rag_jax.index.engines.engine import Queries
from rag_jax.index.engines.store_engines import open_bm25
from rag_jax.index.store import Store
from rag_jax.rag import RAG, Answer

RESULTS, CLOSED_BOOK = "results.json", "none (closed book)"


def answering(rag: RAG, questions: Sequence[Question], batch_size: int = 64) -> tuple[list[Answer], dict[str, float]]:
    """Answers as the config decodes, and their exact match and F1: maximum over the gold answers, mean over all."""
    answers = rag.answer([question.question for question in questions], batch_size=batch_size)
    pairs = list(zip(answers, questions, strict=True))
    return answers, {
        "exact_match": mean([exact_match(answer.text, question.answers) for answer, question in pairs]),
        "f1": mean([f1(answer.text, question.answers) for answer, question in pairs]),
    }


def recall(rag: RAG, questions: Sequence[Question]) -> dict[str, float]:
    """The question tower's recall over the whole index."""
    store = rag.components.store
    rows = rag.search_rows([question.question for question in questions], depth_of(store))
    return recalls(passages_of(store, rows), questions, depth_of(store))


def bm25_recall(store: Store, questions: Sequence[Question]) -> dict[str, float]:
    """BM25's recall over the same passages: the lexical baseline."""
    return recalls(passages_of(store, bm25_rows(store, questions)), questions, depth_of(store))


def bm25_rows(store: Store, questions: Sequence[Question]) -> Int[np.ndarray, "B K"]:
    """The rows that BM25 finds, best first; -1: none."""
    queries = Queries([question.question for question in questions], None)
    return open_bm25(store).search(queries, depth_of(store)).rows


def depth_of(store: Store) -> int:
    """How many passages are searched for: 100, or all there are."""
    return min(DEPTHS[-1], len(store))


def passages_of(store: Store, rows: Int[np.ndarray, "B K"]) -> list[list[Passage]]:
    """The passages of found rows, without missing ones (-1)."""
    return [[store.passages[row] for row in ranked if row >= 0] for ranked in rows.tolist()]


def scores(rag: RAG, questions: Sequence[Question]) -> dict[str, float]:
    """The scores of an evaluation: exact match and F1, and the retriever's recall."""
    _, scores = answering(rag, questions, rag.components.config.eval_batch)
    return scores if rag.components.config.data.is_closed_book else scores | recall(rag, questions)


def recalls(results: Sequence[Sequence[Passage]], questions: Sequence[Question], depth: int) -> dict[str, float]:
    """Recalls at each k of `DEPTHS` up to `depth`.

    `recall@k`: a gold passage is among the first k, over the questions with gold passages. `answer_recall@k`: the text
    of one of the first k passages contains an answer (DPR's top-k accuracy), over the questions with an answer that has
    a token.
    """
    with_gold = [
        (ranked, question) for ranked, question in zip(results, questions, strict=True) if question.positive_ids
    ]
    ids = [[passage.id for passage in ranked] for ranked, _ in with_gold]
    texts = [[passage.text for passage in ranked] for ranked in results]
    depths = [k for k in DEPTHS if k <= depth]
    gold = {f"recall@{k}": recall_at_k(ids, [q.positive_ids for _, q in with_gold], k) for k in depths if with_gold}
    answered = answer_recall_scores(texts, questions, depths)
    return gold | {name: float(np.nanmean(each)) for name, each in answered.items() if not np.isnan(each).all()}


def closed_book_score(workdir: Path, questions: Sequence[Question]) -> float:
    """The exact match of a closed-book run on the same questions, as a baseline.

    Raises `InputError` for a run that is unfinished, has an index, or was evaluated on other questions.
    """
    path = workdir / RESULTS
    remedy = "finish that run first, or leave closed_book out"
    results = json_object.read(path, remedy, remedy)
    score, index = results.read("exact_match", Share), results.read("index", str)
    evaluated_on = results.read("evaluated_on", str)
    if index != CLOSED_BOOK:
        raise InputError(f"{path}: of a run that reads passages; name a closed-book run, or leave closed_book out")
    if evaluated_on != fingerprint(questions):
        remedy = f"evaluate it on these (its own command with this --data.evaluation and --workdir {workdir})"
        raise InputError(f"{path}: evaluated on other questions; {remedy}, or leave closed_book out")
    return score


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
