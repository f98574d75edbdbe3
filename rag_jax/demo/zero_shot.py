"""The baselines of pretrained networks: before training, and without passages."""

import dataclasses
from collections.abc import Sequence

from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.index.store import closed_book
from rag_jax.rag import RAG


def without_passages(rag: RAG) -> RAG:
    """The same networks with the same parameters, closed book: what the generator knows by itself."""
    components = rag.components
    data = dataclasses.replace(components.config.data, passages=None, index=None)
    store = closed_book(components.bi_encoder.config.vector_width, components.generator_tokenizer)
    config = dataclasses.replace(components.config, data=data)
    return RAG(dataclasses.replace(components, config=config, store=store), rag.params)


def answer_scores(rag: RAG, questions: Sequence[Question], prefix: str) -> dict[str, float]:
    """Exact match and F1 of a model, their names with a prefix as `results_table` reads them."""
    _, scores = evaluate.answering(rag, questions, rag.components.config.eval_batch)
    return {f"{prefix}{name}": score for name, score in scores.items()}
