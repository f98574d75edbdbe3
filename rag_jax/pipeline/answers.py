"""What the programs return, as text: answers with their passages, and search results."""

from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rag_jax.core.decode.decoding import Answered
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.index.store import Store
from rag_jax.types import SearchResults


class SearchResult(NamedTuple):
    """A passage that a search returned."""

    id: str
    title: str
    text: str
    score: float  # the engine's own: an inner product, or BM25's
    row: int  # in the index
    document: str = ""  # the id of the document that it is a part of; "": it is a document itself, or that is unknown


class RetrievedPassage(NamedTuple):
    """A retrieved passage and what it contributed to an answer."""

    id: str
    title: str
    text: str
    log_prior: float  # log p(z|x), by the retriever
    posterior: float | None  # p(z|x,y); RAG-Token: the mean over the answer's tokens; None: passages were read together
    attention: float | None = None  # fused: its share of the decoder's attention; None: not fused, or not asked for


class Decision(NamedTuple):
    """What a moderator decided about a text."""

    role: str  # question, passage or answer
    sha256: str  # of the text, so that decisions can be kept without the texts
    category: str
    probability: float  # of this category
    threshold: float | None  # of this category; None: acceptable
    policy: Literal["pass", "flag", "block"]
    probabilities: dict[str, float]  # of all categories


class Answer(NamedTuple):
    """An answer, its probability under the model, and the passages that it was generated from, best first."""

    text: str
    log_prob: float  # log p(y|x), in nats
    score: float  # length-normalised, which beams are ranked by
    passages: list[RetrievedPassage]
    tokens: list[str]
    token_posteriors: Float[np.ndarray, "K T"] | None  # p(z|x,y_t,y_<t) for each of `tokens`; None: no posterior
    alternatives: "list[Answer]"  # the next best, where more than one answer was asked for
    # what a guard blocked, so that `text` is its refusal and no answer of the model; None: nothing
    refused: Literal["question", "passages", "answer"] | None = None
    decisions: tuple[Decision, ...] = ()  # of a guard's moderators, of texts that are not simply passed

    def __repr__(self) -> str:
        counts = f"{len(self.passages)} passages" + f", {len(self.alternatives)} alternatives" * bool(self.alternatives)
        return f"Answer({self.text!r}, log_prob={self.log_prob:.4f}, {counts})"


def to_answers(
    answered: Answered, count: int, store: Store, tokenizer: GeneratorTokenizer, has_posterior: bool = True
) -> list[Answer]:
    """The first `count` questions' answers, each with its alternatives; `answered` is on the host.

    Passages that were read together have no posterior.
    """
    each = (jax.tree.map(lambda array, i=i: array[i], answered) for i in range(count))
    return [_answer(one, store, tokenizer, has_posterior) for one in each]


def to_search_results(results: SearchResults, store: Store) -> list[list[SearchResult]]:
    """The passages found for each question; `results` are on the host and have scores."""

    def result(row: int, score: float) -> SearchResult:
        passage = store.passages[row]
        return SearchResult(passage.id, passage.title, passage.text, score, row, passage.document)

    ranked = zip(np.asarray(results.rows).tolist(), np.asarray(results.scores).tolist(), strict=True)
    return [[result(row, score) for row, score in zip(*each, strict=True) if row >= 0] for each in ranked]


def _answer(answered: Answered, store: Store, tokenizer: GeneratorTokenizer, has_posterior: bool) -> Answer:
    exists = answered.decoded.exists
    ranks = [rank for rank in range(len(exists)) if exists[rank] or not rank]
    ranked = [_ranked(answered, rank, store, tokenizer, has_posterior) for rank in ranks]
    return ranked[0]._replace(alternatives=ranked[1:])


def _ranked(answered: Answered, rank: int, store: Store, tokenizer: GeneratorTokenizer, has_posterior: bool) -> Answer:
    decoded = jax.tree.map(lambda array: array[rank], answered.decoded)
    ids = decoded.tokens[decoded.mask]
    rows, exist = answered.retrieved.rows, answered.retrieved.rows >= 0
    tokens = [tokenizer.tokenizer.decode([int(i)], skip_special_tokens=False) for i in ids]
    posteriors, token_posteriors = [None] * len(rows), None
    mass = [None] * len(rows) if answered.attention_mass is None else answered.attention_mass[rank].tolist()
    if has_posterior:
        posteriors = [float(posterior) for posterior in decoded.doc_posterior]
        token_posteriors = np.asarray(decoded.token_doc_posterior)[exist, : len(ids)]
    passages = [
        RetrievedPassage(*store.passages[row][:3], log_prior=float(prior), posterior=posterior, attention=attention)
        for row, prior, posterior, attention in zip(rows, answered.doc_log_prior, posteriors, mass, strict=True)
        if row >= 0
    ]
    text, log_prob, score = tokenizer.text(ids), float(decoded.log_prob), float(decoded.score)
    return Answer(text, log_prob, score, passages, tokens, token_posteriors, [])
