"""How many passages to read: exact match and answer recall over K (Lewis et al. 2020, figure 3)."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import numpy as np

from rag_jax.core.variants import Model
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.ranking import answer_recall_scores
from rag_jax.experiments import charts, options
from rag_jax.experiments.charts import Panel
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import MODELS, Run, rag_run, train
from rag_jax.experiments.scores import COLUMNS, Summary, exact_matches, summarise
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.rag import RAG

TOLERANCE = 0.005  # a difference of exact match that counts as none
READ_AT_ONCE = 256  # passages; thorough decoding of RAG-Sequence scores K hypotheses under each of them


def plan(given: options.KSweep) -> Plan:
    """The plan of the sweep. Raises `InputError` for values of K that the index does not have."""
    setup = prepare(given)
    check(setup, given.ks)
    return Plan(runs(setup), setup.write_data, partial(measure, setup, given.ks))


def check(setup: Setup, ks: Sequence[int]) -> None:
    """Raise `InputError` for values of K that the index does not have."""
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise InputError(f"--ks are {' '.join(map(str, ks)) or 'none'}; give different numbers of 1 or more")
    size = setup.count_passages()
    if max(ks) > size:
        raise InputError(f"--ks: {max(ks)} is more than the {size:,} passages of the index; give 1 to {size}")


def runs(setup: Setup) -> list[Run]:
    """The trained models."""
    return [rag_run(setup, model, seed) for seed in range(setup.seeds) for model in MODELS]


def measure(setup: Setup, ks: Sequence[int]) -> Report:
    """Answer the questions with each K, and search to the largest."""
    questions, ks = setup.questions(), sorted(ks)
    scores: dict[tuple[Model, int], list[np.ndarray]] = {(model, k): [] for model in MODELS for k in ks}
    recalls: dict[tuple[Model, int], list[float]] = {key: [] for key in scores}
    for seed in range(setup.seeds):
        for model in MODELS:
            rag = train(rag_run(setup, model, seed))
            found = _answer_recalls(rag, questions, ks)
            for k in ks:
                batch = max(1, min(rag.components.config.eval_batch, READ_AT_ONCE // k))
                scores[model, k].append(exact_matches(rag, questions, setup.answers, num_docs=k, batch_size=batch))
                recalls[model, k].append(found[k])
    summaries = {key: summarise(np.stack(each)) for key, each in scores.items()}
    recall = {key: float(np.mean(each)) for key, each in recalls.items()}
    title = "Exact match over the number of passages"
    return Report(
        title=title,
        table=Table(
            ("model", "K", *COLUMNS, "answer recall@K"),
            [(MODELS[model], k, *summary, recall[model, k]) for (model, k), summary in summaries.items()],
        ),
        paper="with more passages RAG-Sequence improves monotonically, while RAG-Token peaks near K = 10.",
        found=verdict({model: {k: summaries[model, k].mean for k in ks} for model in MODELS}),
        draw=partial(charts.lines, title=title, panels=_panels(summaries, recall, ks), xlabel="K", log=True),
        runs=runs(setup),
        questions=len(questions),
        seeds=setup.seeds,
    )


def verdict(means: dict[Model, dict[int, float]]) -> str:
    """Whether RAG-Sequence only rises, and RAG-Token has a peak between the ends, each by more than `TOLERANCE`.

    A fall is counted from the best of all smaller K.
    """
    sequence, token = list(means["sequence"].items()), means["token"]
    best = accumulate((mean for _, mean in sequence), max)
    fall, at = max((so_far - now, k) for so_far, (k, now) in zip(best, sequence, strict=True))
    rises = fall <= TOLERANCE and sequence[-1][1] - sequence[0][1] > TOLERANCE
    first, last = sequence[0], sequence[-1]
    course = f"RAG-Sequence goes from {first[1]:.3f} at K = {first[0]} to {last[1]:.3f} at K = {last[0]}"
    course += f", with a fall of {fall:.3f} at K = {at}." if fall > TOLERANCE else f", never falling by > {TOLERANCE}."
    peak = max(token, key=lambda k: token[k])
    peaks = token[peak] - max(token[min(token)], token[max(token)]) > TOLERANCE
    top = f"RAG-Token is best at K = {peak} ({token[peak]:.3f}; {token[max(token)]:.3f} at K = {max(token)})."
    tested = len(token) > 2
    said = f"RAG-Sequence's monotone rise: {_said(rises, tested)}; "
    said += f"RAG-Token's peak at a moderate K: {_said(peaks, tested)}."
    return f"{course} {top} {said}"


def _said(reproduced: bool, tested: bool) -> str:
    if not tested:
        return "not tested, which takes three values of K"
    return "reproduced" if reproduced else "not reproduced at this scale"


def _answer_recalls(rag: RAG, questions: Sequence[Question], ks: Sequence[int]) -> dict[int, float]:
    """The fraction of questions with an answer among the first K passages, for each K."""
    passages, batch = rag.components.store.passages, rag.components.config.eval_batch
    rows = rag.search_rows([question.question for question in questions], max(ks), batch_size=batch)
    texts = [[passages[row].text for row in ranked if row >= 0] for ranked in rows]
    found = answer_recall_scores(texts, questions, ks)
    return {k: float(np.nanmean(found[f"answer_recall@{k}"])) for k in ks}


def _panels(
    summaries: dict[tuple[Model, int], Summary], recall: dict[tuple[Model, int], float], ks: Sequence[int]
) -> list[Panel]:
    matches = {label: (ks, [summaries[model, k].mean for k in ks]) for model, label in MODELS.items()}
    found = {label: (ks, [recall[model, k] for k in ks]) for model, label in MODELS.items()}
    return [Panel("exact match", matches), Panel("answer recall@K", found)]
