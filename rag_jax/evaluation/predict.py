"""Ask a model all questions of an evaluation: what it retrieves, what it reads, what it answers."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rag_jax.config.generation import GenerationConfig
from rag_jax.corpus.passage import Passage
from rag_jax.data import system_prompts
from rag_jax.data.questions import Question
from rag_jax.errors import warn
from rag_jax.evaluation.labels import Labels
from rag_jax.evaluation.predictions import as_row, label_row
from rag_jax.index.engines.registry import ENGINES
from rag_jax.rag import RAG

AT_ONCE = 512  # questions searched before only ids and scores are kept
EXACT = "float32"  # precision of a search on the device that needs no measured recall
Ranking = list[tuple[Passage, float]]  # the passages found and their scores, best first; without their texts


@dataclass(frozen=True)
class Asked:
    """How every question of an evaluation is asked."""

    labels: Labels | None = None  # choose among them instead of generating
    depth: int = 100  # passages to retrieve for the recalls
    token_posteriors: bool = False  # keep each token's posterior over the passages
    seed: int = 0  # of samples
    batch_size: int = 64
    decoding: GenerationConfig | None = None  # None: the model's own


def model_facts(rag: RAG, asked: Asked) -> dict[str, Any]:
    """What scores depend on: the model, K, the decoder, and the search with its measured recall."""
    components = rag.components
    config, store = components.config, components.store
    decoding = config.decoding if asked.decoding is None else asked.decoding
    facts = {"model": config.model, "decoder": "labels" if asked.labels else decoding.changed_options() or "greedy"}
    if config.generator.system_prompt is not None:
        facts |= {"system_prompt": system_prompts.text(config.generator.system_prompt)}
    if store.is_closed_book:
        return facts | {"index": None}
    k = components.num_docs
    if components.search is not None:
        engine = {"engine": type(components.search.engine).__name__, "passages": len(store)}
        return facts | {"num_docs": k, "index": engine}
    engine, precision = config.retriever.engine, config.retriever.precision
    on_host = ENGINES[engine].on_host
    entry = store.manifest.engines.get(engine if on_host else precision, {}) if store.manifest else {}
    recall = entry.get("recall", "not measured") if on_host or precision != EXACT else "exact"
    index = {"engine": engine, "precision": precision, "passages": len(store), "recall": recall}
    if components.step is not None and store.manifest is None:
        index |= {"step": components.step}  # its vectors are those of a checkpoint
    return facts | {"num_docs": k, "depth": min(asked.depth, len(store)), "index": index}


def rankings(rag: RAG, questions: Sequence[Question], asked: Asked) -> list[Ranking]:
    """The passages found for each question and their scores, best first; nothing for a closed book."""
    store = rag.components.store
    if store.is_closed_book:
        return [[] for _ in questions]
    depth = min(asked.depth, len(store))
    found = []
    for start in range(0, len(questions), AT_ONCE):
        texts = [question.question for question in questions[start : start + AT_ONCE]]
        for results in rag.search(texts, depth, batch_size=asked.batch_size):
            found.append([(Passage(each.id, "", "", each.document), each.score) for each in results])
    return found


def prediction_rows(
    rag: RAG,
    questions: Sequence[Question],
    ranked: Sequence[Ranking],
    asked: Asked,
    skip: Collection[int] = (),
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, line of the predictions file) of each question that is not in `skip`, a batch at a time."""
    texts = [question.question for question in questions]
    how = {"batch_size": asked.batch_size, "skip": skip}
    if asked.labels is None:
        for number, answer in rag.stream(texts, asked.decoding, seed=asked.seed, **how):
            yield number, as_row(questions[number], answer, ranked[number], asked.token_posteriors)
        return
    names = asked.labels.decoded_names(rag.components.generator_tokenizer)
    for number, answer in rag.stream_choices(texts, asked.labels.texts, **how):
        row = as_row(questions[number], answer, ranked[number], asked.token_posteriors)
        yield number, label_row(row, answer, names)


def gold_log_likelihood(rag: RAG, questions: Sequence[Question], asked: Asked) -> Float[np.ndarray, " B"]:
    """The log-probability that the answer is one of the gold answers, in nats; NaN for a question without any.

    log p(A | x) = log sum_{a in A} p(a | x)

    A label is asked for by its text. Answers that become the same tokens count once. Those of more than `max_target`
    tokens are left out, with a warning.
    """
    text_of = {} if asked.labels is None else dict(zip(asked.labels.names, asked.labels.texts, strict=True))
    tokenizer, limit = rag.components.generator_tokenizer, rag.components.config.generator.max_target
    pairs, num_long, left_out = list[tuple[int, str]](), 0, 0
    for number, question in enumerate(questions):
        answers = [text_of.get(answer, answer) for answer in question.answers if answer and not question.regex]
        targets = dict(zip(map(tuple, tokenizer.targets(answers)), answers, strict=True)) if answers else {}
        short = [(number, answer) for target, answer in targets.items() if len(target) <= limit]
        pairs, num_long, left_out = pairs + short, num_long + len(targets) - len(short), left_out + (not short)
    if num_long:
        warn(f"the likelihood is without {num_long} gold answers of more than {limit} tokens, and {left_out} questions")
    total = np.full(len(questions), -np.inf)
    texts, answers = [questions[number].question for number, _ in pairs], [answer for _, answer in pairs]
    log_probs = rag.log_likelihood(texts, answers, batch_size=asked.batch_size)
    for (number, _), log_prob in zip(pairs, log_probs.tolist(), strict=True):
        total[number] = np.logaddexp(total[number], log_prob)
    return np.where(np.isneginf(total), math.nan, total)
