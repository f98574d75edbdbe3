"""Scores of a retriever's ranking, question by question.

Against gold passages by id (recall, nDCG, MRR and MAP by ir-measures), against the answers (DPR's top-k accuracy), and
against the documents that are needed as evidence. Scores are float64 [B] in 0 to 1; NaN where a question has no gold of
that kind: it does not count.
"""

import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import regex_match, require_ranking, spaced_tokens

Scores = dict[str, Float[np.ndarray, " B"]]
DEPTHS = (1, 5, 20, 100)  # k of the recalls
CACHED_PASSAGES = 1 << 16  # popular passages are found for many questions, and tokenised once


def ranking_scores(ranked: Sequence[Sequence[str]], questions: Sequence[Question], depths: Sequence[int]) -> Scores:
    """Scores by gold passages, `Question.positive_ids`.

    `recall@k`: a gold passage is among the first k. The literature on question answering says recall, or top-k
    accuracy; in information retrieval it is Success@k.
    `ndcg@k`: discounted cumulative gain with linear gains, over the best possible one (trec_eval's and BEIR's
    definition), DCG@k = Σ_{r ≤ k} grade_r / log2(r + 1). Grades are `Question.relevance`, else 1.
    `mrr`: 1 / rank of the first gold passage, 0 if it was not found: the mean is MRR.
    `map`: average precision, Σ_r precision@r · gold_r / number of gold passages: the mean is MAP.

    The last two are over the whole ranking, however long. Passages of grade 0 or less are not gold.

    Args:
        ranked: the ids of the passages retrieved for each question, best first; may be empty.
        questions: the questions.
        depths: k.

    Raises `InputError` for k < 1, for other than one ranking per question, for no questions, for a passage that is
    ranked twice, and for grades that do not match the gold passages.
    """
    import ir_measures

    _require_rankings(ranked, questions, depths)
    _refuse_duplicates(ranked, questions)
    measures = {f"recall@{k}": ir_measures.Success @ k for k in depths}
    measures |= {f"ndcg@{k}": ir_measures.nDCG @ k for k in depths}
    measures |= {"mrr": ir_measures.RR, "map": ir_measures.AP}
    gold = {str(number): grades for number, question in enumerate(questions) if (grades := _grades(question))}
    # ir-measures sorts by score, and ties by id: distinct scores keep the ranking. An empty ranking scores 0.
    run = {number: _as_scores(ranked[int(number)]) for number in gold}
    scores = {name: np.full(len(questions), np.nan) for name in measures}
    names = {measure: name for name, measure in measures.items()}
    for metric in ir_measures.iter_calc(list(names), gold, run) if gold else ():
        scores[names[metric.measure]][int(metric.query_id)] = metric.value
    return scores


def answer_recall_scores(
    ranked_texts: Sequence[Sequence[str]], questions: Sequence[Question], depths: Sequence[int]
) -> Scores:
    """`answer_recall@k`: one of the first k texts contains an answer (DPR's top-k accuracy, Karpukhin et al. 2020).

    By `has_answer`, or by `regex_match` anywhere in the text where `Question.regex`. NaN for a question without
    answers, or none of whose answers has a token ("", the answer to an unanswerable question).

    Args:
        ranked_texts: the texts of the passages retrieved for each question, best first; DPR's are without the title.
        questions: the questions.
        depths: k.

    Raises `InputError` as `ranking_scores`, and for an invalid regular expression.
    """
    _require_rankings(ranked_texts, questions, depths)
    tokens = functools.lru_cache(CACHED_PASSAGES)(spaced_tokens)
    deepest = max(depths, default=0)
    ranks = np.full(len(questions), np.nan)
    for number, (texts, question) in enumerate(zip(ranked_texts, questions, strict=True)):
        is_hit = _answer_matcher(question, tokens)
        if is_hit is not None:
            ranks[number] = next((rank for rank, text in enumerate(texts[:deepest], 1) if is_hit(text)), np.inf)
    return {f"answer_recall@{k}": np.where(np.isnan(ranks), np.nan, ranks <= k) for k in depths}


def document_recall_scores(
    ranked: Sequence[Sequence[Passage]], questions: Sequence[Question], depths: Sequence[int]
) -> Scores:
    """Recall of the documents that are needed as evidence, where several passages make a document.

    `document_recall@k`: the fraction of the documents of an evidence set that have a passage among the first k; maximum
    over the evidence sets. This is recall@k of HippoRAG (Gutiérrez et al. 2024).
    `all_documents@k`: 1 where they all have one. On HotpotQA and HoVer this is called passage exact match (Xiong et al.
    2021, Khattab et al. 2021).

    Evidence sets are `Question.evidence`, by document id (`Passage.document`, or `Passage.id` where a passage is a
    document), and `Question.evidence_titles`, by title.

    Args:
        ranked: the passages retrieved for each question, best first.
        questions: the questions.
        depths: k, in passages.

    Raises `InputError` for k < 1, for other than one ranking per question, and for no questions.
    """
    _require_rankings(ranked, questions, depths)
    recalls = {k: np.full(len(questions), np.nan) for k in depths}
    for number, (passages, question) in enumerate(zip(ranked, questions, strict=True)):
        evidence = _evidence_ranks(passages, question)
        for k in depths if evidence else ():
            recalls[k][number] = max(np.mean(ranks <= k) for ranks in evidence)
    scores = {f"document_recall@{k}": recall for k, recall in recalls.items()}
    return scores | {f"all_documents@{k}": np.where(np.isnan(r), np.nan, r == 1) for k, r in recalls.items()}


def _require_rankings(ranked: Sequence[object], questions: Sequence[Question], depths: Sequence[int]) -> None:
    require_ranking(ranked, questions, min(depths, default=1))


def _refuse_duplicates(ranked: Sequence[Sequence[str]], questions: Sequence[Question]) -> None:
    for ids, question in zip(ranked, questions, strict=True):
        if len(set(ids)) < len(ids):
            twice = next(id for id in ids if ids.count(id) > 1)
            raise InputError(f"question {question.id!r}: passage {twice!r} is ranked twice; rank each passage once")


def _as_scores(ids: Sequence[str]) -> dict[str, float]:
    """Distinct scores in the order of the ranking."""
    return {id: -float(rank) for rank, id in enumerate(ids, 1)}


def _grades(question: Question) -> dict[str, int]:
    """The grades of the question's gold passages."""
    ids, grades = question.positive_ids, question.relevance or (1,) * len(question.positive_ids)
    if len(ids) != len(grades):
        remedy = "give one grade per passage, or none"
        raise InputError(f"question {question.id!r}: {len(grades)} grades for {len(ids)} gold passages; {remedy}")
    return {id: grade for id, grade in zip(ids, grades, strict=True) if grade > 0}


def _answer_matcher(question: Question, tokens: Callable[[str], str]) -> Callable[[str], bool] | None:
    """A function that says whether a text contains an answer; None for a question without an answer."""
    if not question.answers:
        return None
    if question.regex:
        return lambda text: regex_match(text, question.answers, anchored=False)
    needles = [needle for answer in question.answers if (needle := spaced_tokens(answer)).strip()]
    return (lambda text: any(needle in tokens(text) for needle in needles)) if needles else None


def _evidence_ranks(passages: Sequence[Passage], question: Question) -> list[Float[np.ndarray, " D"]]:
    """For each evidence set, the ranks at which its documents were first found; infinite if they were not."""
    ids = _first_ranks(passage.document or passage.id for passage in passages)
    titles = _first_ranks(_composed(passage.title) for passage in passages)
    by_id = [[ids.get(id, np.inf) for id in dict.fromkeys(documents)] for documents in question.evidence]
    wanted = [dict.fromkeys(map(_composed, documents)) for documents in question.evidence_titles]
    by_title = [[titles.get(title, np.inf) for title in documents] for documents in wanted]
    return [np.array(ranks) for ranks in (*by_id, *by_title) if ranks]


def _first_ranks(documents: Iterable[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for rank, document in enumerate(documents, 1):
        first.setdefault(document, rank)
    return first


def _composed(title: str) -> str:
    """The title in Unicode NFC, so that both encodings of an accent are equal."""
    return unicodedata.normalize("NFC", title)
