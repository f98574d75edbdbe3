"""What the question tower learns from: the marginal likelihood, or the reader's judgement of each passage.

The same model, the same start, and the same steps; only the tower's objective differs. Attention distillation needs the
attention of a decoder over all passages, so it is trained with Fusion-in-Decoder.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from rag_jax.config.config import Distillation
from rag_jax.core.variants import Model
from rag_jax.errors import InputError
from rag_jax.experiments import charts, options
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import MODELS, Run, rag_run, seconds_per_step, train
from rag_jax.experiments.scores import COLUMNS, Summary, exact_matches, p_value, recall_at_1, summarise
from rag_jax.experiments.setup import Setup, prepare

FROZEN, LIKELIHOOD = "frozen", "likelihood"
ATTENTION = "adist"
LABELS: dict[Model, str] = {**MODELS, "fid": "Fusion-in-Decoder"}
LEVEL = 0.05  # of significance


def plan(given: options.Distillation) -> Plan:
    """The plan of the runs. Raises `InputError` for objectives that cannot be compared."""
    if len(set(given.objectives)) < len(given.objectives):
        raise InputError(f"--objectives are {' '.join(given.objectives)}; give each once")
    setup = prepare(given)
    return Plan(runs(setup, given.objectives), setup.write_data, partial(measure, setup, given.objectives))


def runs(setup: Setup, objectives: Sequence[str]) -> list[Run]:
    """A run for each arm and seed."""
    return [_run(setup, arm, seed) for seed in range(setup.seeds) for arm in _arms(objectives)]


def measure(setup: Setup, objectives: Sequence[str]) -> Report:
    """Train with each objective, and measure what came of it."""
    questions, arms = setup.questions(), _arms(objectives)
    matches: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    facts: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for seed in range(setup.seeds):
        for arm in arms:
            run = _run(setup, arm, seed)
            rag = train(run)
            matches[arm].append(exact_matches(rag, questions, setup.answers))
            facts[arm].append((recall_at_1(rag, questions), seconds_per_step(run)))
    arrays = {arm: np.stack(each) for arm, each in matches.items()}
    summaries = {arm: summarise(each) for arm, each in arrays.items()}
    means = {arm: tuple(np.mean(each, axis=0).tolist()) for arm, each in facts.items()}
    p_values = {arm: p_value(arrays[arm], arrays[LIKELIHOOD]) for arm in arms}
    groups: dict[str, dict[str, Summary]] = {}
    for arm in arms:
        groups.setdefault(LABELS[_model(arm)], {})[arm] = summaries[arm]
    title = "What the question tower learns from"
    return Report(
        title=title,
        table=Table(
            ("objective", "model", *COLUMNS, "p against the likelihood", "recall@1", "seconds per step"),
            [(arm, LABELS[_model(arm)], *summaries[arm], *_p(arm, p_values), *means[arm]) for arm in arms],
        ),
        paper="Lewis et al. train by the marginal likelihood only. Atlas (Izacard et al. 2023) compares EMDR2, PDist, "
        "LOOP and ADist: all are better than a frozen retriever, and differ little.",
        found=verdict({arm: each.mean for arm, each in summaries.items()}, p_values),
        draw=partial(charts.bars, title=title, groups=groups, ylabel="exact match"),
        runs=runs(setup, objectives),
        questions=len(questions),
        seeds=setup.seeds,
        notes=("p: paired permutation test over the questions. Seconds are the median of the windows of steps.",),
    )


def verdict(matches: Mapping[str, float], p_values: Mapping[str, float]) -> str:
    """Each objective beside the likelihood, and whether all are better than a frozen retriever."""
    learnt = [arm for arm in matches if arm not in (FROZEN, LIKELIHOOD)]
    said = [
        f"Exact match is {matches[LIKELIHOOD]:.3f} by the likelihood and {matches[FROZEN]:.3f} with a frozen tower."
    ]
    for arm in learnt:
        differs = "" if p_values[arm] < LEVEL else ", which may be chance"
        difference = matches[arm] - matches[LIKELIHOOD]
        said.append(f"{arm}: {matches[arm]:.3f} ({difference:+.3f}, p = {p_values[arm]:.4f}{differs}).")
    worse = [arm for arm in learnt if matches[arm] <= matches[FROZEN]]
    if worse:
        said.append(f"Not reproduced at this scale: {', '.join(worse)} no better than a frozen retriever.")
    else:
        said.append("Reproduced: every objective is better than a frozen retriever.")
    return " ".join(said)


def _arms(objectives: Sequence[str]) -> list[str]:
    return [FROZEN, LIKELIHOOD, *objectives]


def _model(arm: str) -> Model:
    return "fid" if arm == ATTENTION else "token"


def _run(setup: Setup, arm: str, seed: int) -> Run:
    if arm == FROZEN:
        return rag_run(setup, "token", seed, FROZEN)
    if arm == LIKELIHOOD:
        return rag_run(setup, "token", seed)
    objective = Distillation(objective=arm)  # type: ignore[arg-type]
    return rag_run(setup, _model(arm), seed, name=f"distillation-{arm}", distillation=objective)


def _p(arm: str, p_values: Mapping[str, float]) -> tuple[float | None]:
    return (None if arm == LIKELIHOOD else p_values[arm],)
