"""Training the passage tower: its index refreshed in every step, all at once, or left as it is with the tower frozen.

The towers start from random weights and a few contrastive steps, so that the vectors of the first index are soon worth
nothing. What a refresh costs is counted in time and in FLOPs of a step.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rag_jax.config.command_line import check_counts
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.experiments import charts, options
from rag_jax.experiments.arms import measure_arms, runs_of
from rag_jax.experiments.charts import Panel
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.random_towers import RandomTower, random_tower
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import (
    Run,
    flops_per_step,
    last_loss,
    last_windows,
    mean_seconds_per_step,
    metrics,
    rag_run,
)
from rag_jax.experiments.scores import COLUMNS, LEVEL, p_value, recall_at_1
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.rag import RAG

FROZEN, SHARE, ALL = "frozen index", "a share in each step", "all at once"
SCRATCH = "scratch"  # in the names of runs that start from random towers


class Facts(NamedTuple):
    """What is measured of a run beside its answers."""

    recall: float  # at 1
    loss: float
    oldest: float  # steps since the oldest vector was encoded, the largest mean of a window in the last quarter
    mean: float  # of all vectors, in the last quarter
    seconds: float  # of a step
    teraflops: float  # of a step


def plan(given: options.Refresh) -> Plan:
    """The plan of the runs. Raises `InputError` for a number of steps in which nothing would be refreshed."""
    check_counts(contrastive_steps=given.contrastive_steps)
    setup = prepare(given)
    steps = setup.config.steps
    if not 1 < given.every < steps:
        raise InputError(f"--every is {given.every}; give 2 or more, and less than the {steps:,} steps of a run")
    if given.from_scratch:
        return _plan_from_scratch(setup, given)
    return Plan(runs(setup, given), setup.write_data, partial(measure, setup, given))


def _plan_from_scratch(given_setup: Setup, given: options.Refresh) -> Plan:
    """The plan of runs whose towers are made with the data. Raises `InputError` for configs of trained towers."""
    first = given_setup.reader or given_setup.config
    trained = {"start_from": first.start_from, "retriever.adapter": given_setup.config.retriever.adapter}
    if named := [f"{name} {value}" for name, value in trained.items() if value is not None]:
        raise InputError(f"the towers start from random weights, and the config names {named[0]}; --no-from-scratch")
    start = random_tower(given_setup.config, given.contrastive_steps, given_setup.workdir)
    setup = dataclasses.replace(
        given_setup,
        config=start.started(given_setup.config),
        reader=given_setup.reader and start.started(given_setup.reader),
        prefix=f"{SCRATCH}-{given.contrastive_steps}-",
    )

    def write_data() -> None:
        setup.write_data()
        start.train()

    return Plan(runs(setup, given), write_data, partial(measure, setup, given, start))


def runs(setup: Setup, given: options.Refresh) -> list[Run]:
    """A run for each arm and seed."""
    return runs_of(setup, list(_arms(given)), partial(_run, setup, given))


def measure(setup: Setup, given: options.Refresh, start: RandomTower | None = None) -> Report:
    """Train each arm, and measure what came of it.

    Args:
        start: the towers of random weights that the arms start from; None: the config's.
    """
    questions, arms = setup.questions(), list(_arms(given))
    found = measure_arms(setup, arms, partial(_run, setup, given), lambda run, rag: _facts(run, rag, questions))
    summaries, means = {arm: found[arm].summary for arm in arms}, {arm: Facts(*found[arm].facts) for arm in arms}
    p_values = {arm: p_value(found[arm].matches, found[FROZEN].matches) for arm in arms if arm != FROZEN}
    title = "Training both towers: how the index is refreshed"
    return Report(
        title=title,
        table=Table(
            ("index", *COLUMNS, "recall@1", "loss", "oldest vector", "mean age", "seconds per step", "TFLOP per step"),
            [(arm, *summaries[arm], *means[arm]) for arm in arms],
        ),
        paper="Lewis et al. keep passage tower and index fixed, and found that enough; REALM (Guu et al. 2020) trains "
        "both towers, and refreshes its index every 500 steps in a second job.",
        found=verdict({arm: summaries[arm].mean for arm in arms}, means, p_values),
        draw=partial(charts.lines, title=title, panels=_panels(setup, given), xlabel="step"),
        runs=runs(setup, given),
        questions=len(questions),
        seeds=setup.seeds,
        notes=tuple(_notes(start)),
    )


def _notes(start: RandomTower | None) -> Iterator[str]:
    yield "Ages are in steps. Loss is the mean of the last quarter of the steps, seconds that of all but the first."
    if start is not None:
        what = f"random towers after {start.config.steps} contrastive steps"
        yield f"All arms start from {what}, whose recall@1 is {start.recall:.3f}."


def verdict(matches: Mapping[str, float], facts: Mapping[str, Facts], p_values: Mapping[str, float]) -> str:
    """What training the passage tower gains, and what a refresh costs.

    Args:
        p_values: of the exact match of each arm against that of the frozen index.
    """
    learnt = [arm for arm in matches if arm != FROZEN]
    best, before = max(learnt, key=lambda arm: matches[arm]), facts[FROZEN]
    said = (
        f"Exact match is {matches[best]:.3f} with {best}, and {matches[FROZEN]:.3f} with a {FROZEN} "
        f"(p = {p_values[best]:.4f}, paired permutation test over the questions); "
        f"recall@1 {facts[best].recall:.3f} and {before.recall:.3f}."
    )
    costs = ", ".join(
        f"{facts[arm].seconds / before.seconds:.2f} times the seconds and "
        f"{facts[arm].teraflops / before.teraflops:.2f} times the FLOPs ({arm})"
        for arm in learnt
    )
    is_better = matches[best] > matches[FROZEN]
    gains = ("gains" if is_better else "costs accuracy") if p_values[best] < LEVEL else "gains nothing certain"
    return f"{said} A step costs {costs}. Training the passage tower {gains} here."


def _arms(given: options.Refresh) -> dict[str, dict[str, Any]]:
    """The fields of the retriever by the name of the arm."""
    frozen = {"train_passages": False, "refresh_every": None, "refresh_at_once": False, "candidates": None}
    both = frozen | {"train_passages": True, "refresh_every": given.every}
    return {FROZEN: frozen, SHARE: both, ALL: both | {"refresh_at_once": True}}


def _run(setup: Setup, given: options.Refresh, arm: str, seed: int) -> Run:
    name = {FROZEN: "frozen-index", SHARE: f"refresh-{given.every}", ALL: f"refresh-at-once-{given.every}"}[arm]
    return rag_run(setup, "token", seed, name=name, tower_rate=given.rate_factor, **_arms(given)[arm])


def _facts(run: Run, rag: RAG, questions: Sequence[Question]) -> Facts:
    last = last_windows(run)
    return Facts(
        recall_at_1(rag, questions),
        last_loss(run),
        max(window.get("staleness_oldest", np.nan) for window in last),
        float(np.mean([window.get("staleness_mean", np.nan) for window in last])),
        mean_seconds_per_step(run),
        flops_per_step(run) / 1e12,
    )


def _panels(setup: Setup, given: options.Refresh) -> list[Panel]:
    """Loss and recall of the first seed over the steps."""
    courses = {arm: metrics(_run(setup, given, arm, 0)) for arm in _arms(given)}

    def over_steps(key: str) -> dict[str, charts.Line]:
        return {
            arm: ([window["step"] for window in course], [window.get(key) for window in course])
            for arm, course in courses.items()
        }

    return [Panel("loss", over_steps("loss")), Panel("recall@K in training", over_steps("recall"))]
