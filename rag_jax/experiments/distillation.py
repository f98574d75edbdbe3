"""What the question tower learns from: the marginal likelihood, or the reader's judgement of each passage.

The same model, the same start, and the same steps; only the tower's objective differs. Attention distillation needs the
attention of a decoder over all passages: it is trained with Fusion-in-Decoder, and both its arm and the frozen one of
that model start from a run that has learnt to read several passages together (Izacard & Grave 2021).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rag_jax import hub
from rag_jax.config.config import Config, Distillation
from rag_jax.core.variants import VARIANTS, Model
from rag_jax.errors import InputError
from rag_jax.experiments import charts, options
from rag_jax.experiments.arms import Measured, measure_arms, runs_of
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import MODELS, Run, rag_run, seconds_per_step
from rag_jax.experiments.scores import COLUMNS, LEVEL, Summary, p_value, recall_at_1
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.models.architecture import Architecture
from rag_jax.pipeline import networks
from rag_jax.types import Generator

FROZEN, LIKELIHOOD = "frozen", "likelihood"
ATTENTION = "adist"
FID_READER = "fid-reader"  # the run that both start from
LABELS: dict[Model, str] = {**MODELS, "fid": "Fusion-in-Decoder"}


class Arm(NamedTuple):
    """What the question tower learns from, in a model."""

    objective: str
    model: Model = "token"

    @property
    def frozen(self) -> "Arm":
        """The same model with a frozen tower."""
        return self._replace(objective=FROZEN)


class PValues(NamedTuple):
    """p-values of an arm's exact match; None: it is the other itself."""

    frozen: float | None  # against the same model with a frozen tower
    likelihood: float | None  # against RAG-Token trained by the likelihood


BY_LIKELIHOOD = Arm(LIKELIHOOD)


def plan(given: options.Distillation) -> Plan:
    """The plan of the runs. Raises `InputError` for objectives that cannot be compared."""
    if not 0 < len(set(given.objectives)) == len(given.objectives):
        raise InputError(f"--objectives are {' '.join(given.objectives) or 'empty'}; give one or more, each once")
    setup = prepare(given)
    for config in (setup.config, setup.reader) if ATTENTION in given.objectives else ():
        if config is not None and _family(config).is_decoder_only:
            problem = f"--objectives adist trains Fusion-in-Decoder, and a {_family(config).name} has no encoder"
            raise InputError(f"{problem}; name the others: --objectives emdr2 pdist loop lsr")
    return Plan(runs(setup, given.objectives), setup.write_data, partial(measure, setup, given.objectives))


def _family(config: Config) -> Architecture[Generator]:
    """The architecture of a config's generator."""
    source = config.generator.checkpoint
    return networks.generator_architecture(config) if source is None else hub.generator_family(source)


def runs(setup: Setup, objectives: Sequence[str]) -> list[Run]:
    """A run for each arm and seed."""
    return runs_of(setup, _arms(objectives), partial(_run, setup))


def measure(setup: Setup, objectives: Sequence[str]) -> Report:
    """Train with each objective, and measure what came of it."""
    questions, arms = setup.questions(), _arms(objectives)
    found = measure_arms(
        setup, arms, partial(_run, setup), lambda run, rag: (recall_at_1(rag, questions), seconds_per_step(run))
    )
    p_values = {arm: _p_values(found, arm) for arm in arms}
    groups: dict[str, dict[str, Summary]] = {}
    for arm in arms:
        groups.setdefault(LABELS[arm.model], {})[arm.objective] = found[arm].summary
    title = "What the question tower learns from"
    return Report(
        title=title,
        table=Table(
            (
                "objective",
                "model",
                *COLUMNS,
                "p against frozen",
                "p against the likelihood",
                "recall@1",
                "seconds per step",
            ),
            [
                (arm.objective, LABELS[arm.model], *found[arm].summary, *p_values[arm], *found[arm].facts)
                for arm in arms
            ],
        ),
        paper="Lewis et al. train by the marginal likelihood only. Atlas (Izacard et al. 2023) compares EMDR2, PDist, "
        "LOOP and ADist: all are better than a frozen retriever, and differ little.",
        found=verdict({arm: found[arm].summary.mean for arm in arms}, p_values),
        draw=partial(charts.bars, title=title, groups=groups, ylabel="exact match"),
        runs=runs(setup, objectives),
        questions=len(questions),
        seeds=setup.seeds,
        notes=(
            "p: paired permutation test over the questions; frozen: with the same model. Seconds are the median of the "
            "windows of steps.",
        ),
    )


def verdict(matches: Mapping[Arm, float], p_values: Mapping[Arm, PValues]) -> str:
    """Each objective beside the likelihood, and whether all are better than a frozen tower."""
    learnt = [arm for arm in matches if arm != arm.frozen]
    frozen = ", ".join(f"{matches[arm]:.3f} ({LABELS[arm.model]})" for arm in matches if arm not in learnt)
    said = [f"Exact match is {frozen} with a frozen tower, {matches[BY_LIKELIHOOD]:.3f} trained by the likelihood."]
    for arm in learnt:
        p = p_values[arm].likelihood
        if p is not None:
            differs = "" if p < LEVEL else ", which may be chance"
            difference = matches[arm] - matches[BY_LIKELIHOOD]
            said.append(f"{arm.objective}: {matches[arm]:.3f} ({difference:+.3f}, p = {p:.4f}{differs}).")
    worse = [arm.objective for arm in learnt if not _is_better(arm, matches, p_values)]
    if worse:
        said.append(f"Not reproduced at this scale: {', '.join(worse)} no better than a frozen tower, or by chance.")
    else:
        said.append(f"Reproduced: each objective is better than a frozen tower, with p < {LEVEL}.")
    return " ".join(said)


def _is_better(arm: Arm, matches: Mapping[Arm, float], p_values: Mapping[Arm, PValues]) -> bool:
    p = p_values[arm].frozen
    return p is not None and p < LEVEL and matches[arm] > matches[arm.frozen]


def _arms(objectives: Sequence[str]) -> list[Arm]:
    learn = [Arm(each, "fid") if each == ATTENTION else Arm(each) for each in objectives]
    frozen = dict.fromkeys(arm.frozen for arm in (BY_LIKELIHOOD, *learn))
    return [*frozen, BY_LIKELIHOOD, *learn]


def _run(setup: Setup, arm: Arm, seed: int) -> Run:
    none = Distillation()
    fuses = VARIANTS[arm.model].fuses
    reader = rag_run(setup, arm.model, seed, FROZEN, name=FID_READER, distillation=none) if fuses else None
    if arm.objective == FROZEN:
        return rag_run(setup, arm.model, seed, FROZEN, after=reader, distillation=none)
    if arm == BY_LIKELIHOOD:
        return rag_run(setup, arm.model, seed, distillation=none)
    given = setup.config.retriever.distillation
    if arm.objective == "emdr2":
        given = dataclasses.replace(given, teacher_temperature=1.0)  # it has none
    objective = dataclasses.replace(given, objective=arm.objective)
    return rag_run(setup, arm.model, seed, name=f"distillation-{arm.objective}", after=reader, distillation=objective)


def _p_values(found: Mapping[Arm, Measured], arm: Arm) -> PValues:
    """Those of an arm against others; None against itself."""
    others = [None if other == arm else found[other] for other in (arm.frozen, BY_LIKELIHOOD)]
    return PValues(*(other and p_value(found[arm].matches, other.matches) for other in others))
