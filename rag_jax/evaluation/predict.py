"""Ask a model all questions of an evaluation: what it retrieves, what it reads, what it answers."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rag_jax.config.generation import GenerationConfig
from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.evaluation.predictions import as_row, label_row
from rag_jax.rag import RAG

AT_ONCE = 512  # questions searched before only ids and scores are kept
Ranking = list[tuple[str, float]]  # ids and scores of the passages found, best first


@dataclass(frozen=True)
class Labels:
    """The labels of a classification: as the gold answers name them, and as the generator is asked for them."""

    names: tuple[str, ...]
    texts: tuple[str, ...]

    @classmethod
    def parse(cls, values: Sequence[str]) -> "Labels":
        """From `NAME` or `NAME=TEXT`, as "SUPPORTED=true"."""
        pairs = [(name, text if sign else name) for name, sign, text in (value.partition("=") for value in values)]
        if not all(text.strip() for pair in pairs for text in pair):
            raise InputError(f"labels are {list(values)}; give each as NAME or NAME=TEXT, neither of them empty")
        names, texts = zip(*pairs, strict=True)
        if len(set(names)) < len(names):
            raise InputError(f"labels are {list(values)}; give every label once")
        return cls(names, texts)

    def check(self, questions: Sequence[Question]) -> None:
        """Raise `InputError` for a question whose gold answers are not labels."""
        for question in questions:
            odd = [answer for answer in question.answers if answer not in self.names]
            if odd or not question.answers:
                is_not = f'its gold answer "{odd[0]}" is none of the labels' if odd else "it has no gold answer"
                raise InputError(f'question "{question.id}": {is_not} {", ".join(self.names)}; name it, NAME=TEXT')


@dataclass(frozen=True)
class Asked:
    """How every question of an evaluation is asked."""

    labels: Labels | None = None  # choose among them instead of generating
    num_docs: int | None = None  # K, the passages to read; None: as in training
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
    if store.is_closed_book:
        return facts | {"index": None}
    k = components.num_docs if asked.num_docs is None else asked.num_docs
    if components.search is not None:
        engine = {"engine": type(components.search.engine).__name__, "passages": len(store)}
        return facts | {"num_docs": k, "index": engine}
    engine, precision = config.retriever.engine, config.retriever.precision
    entry = store.manifest.engines.get(precision if engine == "device" else engine, {}) if store.manifest else {}
    exact = "exact" if engine == "device" and precision == "float32" else entry.get("recall", "not measured")
    index = {"engine": engine, "precision": precision, "passages": len(store), "recall": exact}
    return facts | {"num_docs": k, "depth": min(asked.depth, len(store)), "index": index}


def rankings(rag: RAG, questions: Sequence[Question], asked: Asked) -> list[Ranking]:
    """Ids and scores of the passages found for each question, best first; nothing for a closed book."""
    store = rag.components.store
    if store.is_closed_book:
        return [[] for _ in questions]
    depth = min(asked.depth, len(store))
    found = []
    for start in range(0, len(questions), AT_ONCE):
        texts = [question.question for question in questions[start : start + AT_ONCE]]
        for results in rag.search(texts, depth, batch_size=asked.batch_size):
            found.append([(result.id, result.score) for result in results])
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
    how = {"num_docs": asked.num_docs, "batch_size": asked.batch_size, "skip": skip}
    if asked.labels is None:
        for number, answer in rag.stream(texts, asked.decoding, seed=asked.seed, **how):
            yield number, as_row(questions[number], answer, ranked[number], asked.token_posteriors)
        return
    names = _decoded_names(rag, asked.labels)
    for number, answer in rag.stream_choices(texts, asked.labels.texts, **how):
        row = as_row(questions[number], answer, ranked[number], asked.token_posteriors)
        yield number, label_row(row, answer, names)


def gold_log_likelihood(rag: RAG, questions: Sequence[Question], asked: Asked) -> Float[np.ndarray, " B"]:
    """The log-probability that the answer is one of the gold answers, in nats; NaN for a question without any.

    log p(A | x) = log sum_{a in A} p(a | x)

    Answers that become the same tokens count once. Those of more than `max_target` tokens are left out, with a warning.
    """
    tokenizer, limit = rag.components.generator_tokenizer, rag.components.config.generator.max_target
    pairs, num_long = list[tuple[int, str]](), 0
    for number, question in enumerate(questions):
        answers = [answer for answer in question.answers if answer and not question.regex]
        targets = dict(zip(map(tuple, tokenizer.targets(answers)), answers, strict=True)) if answers else {}
        pairs += [(number, answer) for target, answer in targets.items() if len(target) <= limit]
        num_long += sum(len(target) > limit for target in targets)
    if num_long:
        warn(f"left {num_long} gold answers of more than {limit} tokens (generator.max_target) out of the likelihood")
    total = np.full(len(questions), -np.inf)
    texts, answers = [questions[number].question for number, _ in pairs], [answer for _, answer in pairs]
    log_probs = rag.log_likelihood(texts, answers, num_docs=asked.num_docs, batch_size=asked.batch_size)
    for (number, _), log_prob in zip(pairs, log_probs.tolist(), strict=True):
        total[number] = np.logaddexp(total[number], log_prob)
    return np.where(np.isneginf(total), math.nan, total)


def _decoded_names(rag: RAG, labels: Labels) -> dict[str, str]:
    """The name of each label by what its tokens are decoded to, which may differ from the label in spaces or case."""
    tokenizer = rag.components.generator_tokenizer
    decoded = [tokenizer.text(ids) for ids in tokenizer.targets(labels.texts)]
    if len(set(decoded)) < len(decoded):
        raise InputError(f"labels {list(labels.texts)}: two of them are the same to the generator; give others")
    return dict(zip(decoded, labels.names, strict=True))
