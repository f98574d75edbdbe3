"""What the programs decoded, as text with its passages."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rag_jax.core.decode.decoding import Answered
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.index.store import Store


class RetrievedPassage(NamedTuple):
    """A retrieved passage and what it contributed to an answer."""

    id: str
    title: str
    text: str
    log_prior: float  # log p(z|x), by the retriever
    posterior: float  # p(z|x,y); with RAG-Token the mean over the answer's tokens


class Answer(NamedTuple):
    """An answer, its probability under the model, and the passages it rests on, best first."""

    text: str
    log_prob: float  # log p(y|x), in nats
    score: float  # the length-normalised one, that beams are ranked by
    passages: list[RetrievedPassage]
    tokens: list[str]
    token_posteriors: Float[np.ndarray, "K T"]  # p(z|x,y_t,y_<t) for each of `tokens`
    alternatives: "list[Answer]"  # the next best, as many as exist of those asked for


def to_answers(found: Answered, count: int, store: Store, words: GeneratorTokenizer) -> list[Answer]:
    """The first `count` questions' answers, each with its alternatives; `found` is on the host."""
    return [_answer(jax.tree.map(lambda array, row=row: array[row], found), store, words) for row in range(count)]


def _answer(found: Answered, store: Store, words: GeneratorTokenizer) -> Answer:
    exists = found.decoded.exists
    ranked = [_ranked(found, rank, store, words) for rank in range(len(exists)) if exists[rank] or not rank]
    return ranked[0]._replace(alternatives=ranked[1:])


def _ranked(found: Answered, rank: int, store: Store, words: GeneratorTokenizer) -> Answer:
    decoded = jax.tree.map(lambda array: array[rank], found.decoded)
    ids = decoded.tokens[decoded.mask]
    per_passage = zip(found.retrieved.rows, found.doc_log_prior, decoded.doc_posterior, strict=True)
    read = [
        RetrievedPassage(*store.passages[row][:3], log_prior=float(prior), posterior=float(posterior))
        for row, prior, posterior in per_passage
        if row >= 0
    ]
    pieces = [words.tokenizer.decode([int(i)], skip_special_tokens=False) for i in ids]
    posteriors = np.asarray(decoded.token_doc_posterior)[found.retrieved.rows >= 0, : len(ids)]
    return Answer(words.text(ids), float(decoded.log_prob), float(decoded.score), read, pieces, posteriors, [])
