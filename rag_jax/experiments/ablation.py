"""What learning to retrieve is worth: BM25, a frozen and a trained retriever (Lewis et al. 2020, table 6).

Each is trained with its own retriever, for both models. Bounds: the same trained model over random passages and over
the gold passages, and a generator without passages.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.core.variants import Model
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.baselines import BASELINES, GoldPassages, with_engine, without_passages
from rag_jax.experiments import charts, options
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import MODELS, RETRIEVERS, RetrieverName, Run, closed_book_run, rag_run, train
from rag_jax.experiments.scores import COLUMNS, LEVEL, Summary, exact_matches, p_value, summarise
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.index.engines.registry import ENGINES
from rag_jax.rag import RAG

PAPER: dict[tuple[Model, RetrieverName], float] = {
    # exact match on the development set of Natural Questions
    ("token", "BM25"): 0.297,
    ("sequence", "BM25"): 0.318,
    ("token", "frozen"): 0.378,
    ("sequence", "frozen"): 0.412,
    ("token", "trained"): 0.435,
    ("sequence", "trained"): 0.440,
}
CLOSED_BOOK, RANDOM, GOLD = "closed book", "random passages", "gold passages"
NO_PASSAGES = "no passages"  # the group of the closed-book baseline
Scores = Float[np.ndarray, "S B"]


def plan(given: options.Ablation) -> Plan:
    """The plan of the ablation. Raises `InputError` for a config that retrieves by words anyway."""
    setup = prepare(given)
    engine = setup.config.retriever.engine
    if ENGINES[engine].scores_are_prior:
        raise InputError(f"{given.config}: its engine is {engine}; name a config whose passages are found by vectors")
    return Plan(runs(setup), setup.write_data, partial(measure, setup))


def runs(setup: Setup) -> list[Run]:
    """All trainings, those of a seed together."""
    return [run for seed in range(setup.seeds) for run in _runs_of(setup, seed)]


def measure(setup: Setup) -> Report:
    """Train what is not trained yet, answer the questions with each model, and compare."""
    questions = setup.questions()
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    for seed in range(setup.seeds):
        for key, matches in _measure_seed(setup, questions, seed):
            scores.setdefault(key, []).append(matches)
    arrays = {key: np.stack(each) for key, each in scores.items()}
    summaries = {key: summarise(each) for key, each in arrays.items()}
    p_values: dict[Model, float] = {
        model: p_value(arrays[model, "trained"], arrays[model, "frozen"]) for model in MODELS
    }
    groups: dict[str, dict[str, Summary]] = {}
    for (model, name), summary in summaries.items():
        groups.setdefault(_label(model), {})[name] = summary
    title = "Ablation of the retriever"
    return Report(
        title=title,
        table=Table(("model", "passages", *COLUMNS, "paper (NQ)"), [_row(*each) for each in summaries.items()]),
        paper="a trained retriever is better than a frozen one, and that better than BM25, with both models "
        "(exact match on NQ: see the table).",
        found=verdict({key: summary.mean for key, summary in summaries.items()}, p_values),
        draw=partial(charts.bars, title=title, groups=groups, ylabel="exact match"),
        runs=runs(setup),
        questions=len(questions),
        seeds=setup.seeds,
        notes=_notes(setup, questions, int((~np.isnan(arrays["token", GOLD][0])).sum())),
    )


def verdict(means: dict[tuple[str, str], float], p_values: dict[Model, float]) -> str:
    """What was found, in a sentence for each model and one that compares with the paper."""
    sentences, ordered = [], True
    for model, label in MODELS.items():
        trained, frozen, bm25 = (means[model, name] for name in ("trained", "frozen", "BM25"))
        sentences.append(
            f"{label}: trained {trained:.3f}, frozen {frozen:.3f}, BM25 {bm25:.3f}; trained against frozen "
            f"{trained - frozen:+.3f}, p = {p_values[model]:.4f} (paired permutation test over the questions)."
        )
        ordered &= trained > frozen > bm25 and p_values[model] < LEVEL
    if ordered:
        sentences.append(f"Reproduced: the order of the paper, with p < {LEVEL} for trained against frozen.")
    else:
        sentences.append(
            f"Not reproduced at this scale: the order trained > frozen (p < {LEVEL}) > BM25 with both models."
        )
    return " ".join(sentences)


def _runs_of(setup: Setup, seed: int) -> Iterator[Run]:
    for model in MODELS:
        yield from (rag_run(setup, model, seed, retriever) for retriever in RETRIEVERS)
    if setup.closed_book is not None:
        yield closed_book_run(setup, seed)


def _measure_seed(
    setup: Setup, questions: Sequence[Question], seed: int
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """(model, passages) and the exact matches [B] of everything measured with a seed."""
    for model in MODELS:
        for retriever in RETRIEVERS:
            rag = train(rag_run(setup, model, seed, retriever))
            yield (model, retriever), exact_matches(rag, questions, setup.answers)
            if retriever == "trained":
                random = BASELINES["random"](rag, questions, seed)
                yield (model, RANDOM), exact_matches(random, questions, setup.answers, f"random, seed {seed}")
                yield (model, GOLD), _with_gold(rag, questions, setup.answers)
                if setup.closed_book is None:
                    yield (model, CLOSED_BOOK), exact_matches(without_passages(rag), questions, setup.answers)
    if setup.closed_book is not None:
        yield (NO_PASSAGES, CLOSED_BOOK), exact_matches(train(closed_book_run(setup, seed)), questions, setup.answers)


def _with_gold(rag: RAG, questions: Sequence[Question], kept: Path) -> Float[np.ndarray, " B"]:
    """Exact matches over the gold passages; NaN for questions that have none in the index."""
    store, matches = rag.components.store, np.full(len(questions), np.nan)
    has_gold = np.array([bool((store.find(question.positive_ids) >= 0).any()) for question in questions])
    asked = [question for question, has in zip(questions, has_gold, strict=True) if has]
    if asked:
        read = f"gold: {[question.positive_ids for question in asked]}"
        matches[has_gold] = exact_matches(with_engine(rag, GoldPassages.of(rag, asked)), asked, kept, read)
    return matches


def _row(key: tuple[str, str], summary: Summary) -> tuple:
    return (_label(key[0]), key[1], *summary, PAPER.get(key))  # type: ignore[call-overload]


def _label(model: str) -> str:
    return {**MODELS}.get(model, model)  # type: ignore[call-overload]


def _notes(setup: Setup, questions: Sequence[Question], num_with_gold: int) -> tuple[str, ...]:
    without = len(questions) - num_with_gold
    notes = []
    if setup.closed_book is None:
        notes.append("Closed book is the trained model asked without its passages, not a model trained without any.")
    if without:
        notes.append(f"{without:,} questions name no gold passages of the index, and do not count there.")
    return tuple(notes)
