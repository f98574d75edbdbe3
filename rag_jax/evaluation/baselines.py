"""The baselines that a RAG model is compared with: the same program on other passages, or with another retriever.

A baseline turns a model into another one; the generator's parameters stay. Which passages a question reads is a search
engine's answer, so that random and gold passages are two more engines.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.index.engines.engine import Engine, EngineResults, Queries, select_top_k
from rag_jax.index.store import closed_book
from rag_jax.pipeline import length_limits, networks
from rag_jax.pipeline.host_retrieval import HostSearch
from rag_jax.rag import RAG

Baseline = Callable[[RAG, Sequence[Question], int], RAG]  # (model, questions, seed)


def without_passages(rag: RAG) -> RAG:
    """The same networks with the same parameters, closed book: what the generator knows by itself."""
    components = rag.components
    data = dataclasses.replace(components.config.data, passages=None, index=None)
    store = closed_book(components.bi_encoder.config.vector_width, components.generator_tokenizer)
    config = dataclasses.replace(components.config, data=data)
    return RAG(dataclasses.replace(components.with_store(store), config=config), rag.params)


def with_num_docs(rag: RAG, num_docs: int) -> RAG:
    """The model with another K."""
    return _with(rag, "retriever", num_docs=num_docs)


def with_pretrained_tower(rag: RAG) -> RAG:
    """The question tower as its checkpoint has it, without any training.

    Raises `InputError` for an index by a passage tower that was trained: it does not fit the question tower.
    """
    if rag.params.passage_tower is not None:
        problem = "the index is of the trained passage tower, and does not fit the question tower before training"
        raise InputError(f"{problem}; read recall@k_before in the run's results.json instead")
    return RAG(rag.components, rag.params._replace(question_tower=rag.components.initial_params.question_tower))


def with_bm25(rag: RAG) -> RAG:
    """BM25 as retriever, its scores as logits of the prior."""
    rag = RAG(rag.components.over_same_index(search=None), rag.params)
    return _with(rag, "retriever", engine="bm25")


def with_stuffing(rag: RAG) -> RAG:
    """All K passages in one prompt, without marginalisation.

    Raises `InputError` where the generator has no positions for so long a prompt.
    """
    components, config = rag.components, rag.components.config.generator
    k, longer = components.num_docs, config.max_input + (components.num_docs - 1) * config.max_passage
    stuffed = _with(rag, "generator", passages_per_prompt=k, max_input=longer, lengths=())
    networks.check_fuses(stuffed.components.config, components.generator.config, "generator")
    length_limits.check_networks(stuffed.components.config, components.bi_encoder.config, components.generator.config)
    # Where passages begin with the space that ends the prompt's header, only the first one of a prompt does.
    return stuffed.with_prompt() if components.generator_tokenizer.no_passage else stuffed


def with_engine(rag: RAG, engine: Engine, is_prior: bool = False) -> RAG:
    """The model with a search engine of your own; `is_prior`: its scores are logits of p(z|x), not q(x) . d(z)."""
    search = HostSearch(engine, rag.components.store, is_prior, rag.components.placement.shards)
    return RAG(dataclasses.replace(rag.components, search=search), rag.params)


@dataclasses.dataclass(frozen=True)
class GoldPassages:
    """An engine that finds the gold passages of each question, and nothing else."""

    rows: Mapping[str, Sequence[int]]  # by the question's text

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The first k gold passages."""
        if unknown := [text for text in queries.texts if text not in self.rows]:
            raise InputError(f"no gold passages are known of {unknown[0]!r}; ask the questions that they were read for")
        found = [list(self.rows[text]) for text in queries.texts]
        width = max(k, *map(len, found))
        rows = np.array([each + [-1] * (width - len(each)) for each in found], np.int32)
        return select_top_k(rows, np.where(rows < 0, -np.inf, 0.0), k, excluded)

    @classmethod
    def of(cls, rag: RAG, questions: Sequence[Question]) -> "GoldPassages":
        """Those of the questions. Raises `InputError` for a question without a gold passage in the index."""
        rows: dict[str, list[int]] = {}
        different = {question.question for question in questions}
        if len(different) < len(questions):
            warn(f"{len(questions) - len(different)} questions repeat another's text, and share its gold passages")
        for question in questions:
            found = [row for row in rag.components.store.find(question.positive_ids).tolist() if row >= 0]
            if not found:
                remedy = "give every question positive_ids, or choose another baseline"
                raise InputError(f'question "{question.id}": none of its gold passages is in the index; {remedy}')
            known = rows.setdefault(question.question, [])
            known += [row for row in found if row not in known]
        return cls(rows)


@dataclasses.dataclass(frozen=True)
class RandomPassages:
    """An engine that draws passages at random, for a question always the same."""

    alive: Int[np.ndarray, " n"]  # rows
    seed: int = 0

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """k different rows for each question."""
        more = k + (0 if excluded is None else excluded.shape[1])
        drawn = [self._draw(text, min(more, len(self.alive))) for text in queries.texts]
        rows = np.array(drawn, np.int32)
        return select_top_k(rows, np.zeros(rows.shape), k, excluded)

    def _draw(self, text: str, count: int) -> list[int]:
        """The first `count` of the question's own order, one after the other: fewer are the beginning of more."""
        draw, found = np.random.default_rng([self.seed, zlib.crc32(text.encode())]), dict[int, None]()
        while len(found) < count:
            found[int(self.alive[draw.integers(len(self.alive))])] = None
        return [*found]


def _with(rag: RAG, part: str, **changes: Any) -> RAG:
    """The model with fields of one part of its config changed."""
    config = rag.components.config
    changed = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **changes)})
    return RAG(rag.components.over_same_index(config=changed), rag.params)


def _random(rag: RAG, questions: Sequence[Question], seed: int) -> RAG:
    del questions
    return with_engine(rag, RandomPassages(np.flatnonzero(rag.components.store.alive), seed))


BASELINES: dict[str, Baseline] = {
    "closed-book": lambda rag, questions, seed: without_passages(rag),
    "bm25": lambda rag, questions, seed: with_bm25(rag),
    "pretrained-tower": lambda rag, questions, seed: with_pretrained_tower(rag),
    "random": _random,
    "gold": lambda rag, questions, seed: with_engine(rag, GoldPassages.of(rag, questions)),
    "stuffing": lambda rag, questions, seed: with_stuffing(rag),
}
