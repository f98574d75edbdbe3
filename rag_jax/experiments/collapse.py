"""Retrieval collapse: what the monitors see in a healthy run and in runs that lose their retriever.

Lewis et al. (2020) met it on story generation: the retriever "would learn to retrieve the same documents regardless of
the input". Two causes are tried: a question tower that learns far too fast, and one that learns before the generator
can use passages, whose gradient is noise.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rag_jax.errors import InputError
from rag_jax.experiments import charts, options
from rag_jax.experiments.charts import Panel
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import Run, metrics, rag_run, train
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.training.collapse_monitor import CollapseMonitor

MONITORED = ("distinct", "most_frequent", "prior_entropy", "kl")
HEALTHY, FAST, UNREAD = "healthy", "tower rate too high", "generator that cannot read yet"


class Course(NamedTuple):
    """The course of a run: its windows of metrics, and the warning."""

    windows: list[dict[str, float]]
    warned_at: int | None  # step
    warning: str | None


def plan(given: options.Collapse) -> Plan:
    """The plan of the runs. Raises `InputError` for a factor that is none."""
    check(given.rate_factor)
    setup = prepare(given)
    found = named_runs(setup, given.rate_factor)
    return Plan(list(found.values()), setup.write_data, partial(measure, found))


def check(rate_factor: float) -> None:
    """Raise `InputError` for a factor that is none."""
    if not 1 < rate_factor < float("inf"):
        raise InputError(f"--rate-factor is {rate_factor}; give more than 1")


def named_runs(setup: Setup, rate_factor: float) -> dict[str, Run]:
    """The runs by what they are; the last only where there is a stage to leave out."""
    found = {
        HEALTHY: rag_run(setup, "token", 0),
        FAST: rag_run(setup, "token", 0, name=f"collapse-rate-{rate_factor:g}", tower_rate=rate_factor),
    }
    if setup.reader is not None or setup.config.start_from is not None:
        found[UNREAD] = rag_run(setup, "token", 0, name="collapse-unread", learn_to_read=False)
    return found


def measure(found: Mapping[str, Run]) -> Report:
    """Train the runs, and read their metrics."""
    courses = {}
    for name, run in found.items():
        train(run)
        courses[name] = course(metrics(run))
    title = "Retrieval collapse as the monitors see it"
    return Report(
        title=title,
        table=Table(("run", "metric", "first", "highest", "last", "warning at step"), _rows(courses)),
        paper="on story generation the retriever collapsed: it returned the same passages for every input, and the "
        "generator learnt to ignore them. No monitor is described.",
        found=verdict(courses),
        draw=partial(charts.lines, title=title, panels=_panels(courses), xlabel="step"),
        runs=list(found.values()),
        questions=None,
        seeds=1,
        data=Table(("run", "step", "loss", *MONITORED, "warning"), _windows(courses)),
        notes=tuple(f"{name}: {each.warning}" for name, each in courses.items() if each.warning),
    )


def course(windows: Sequence[dict[str, float]]) -> Course:
    """A run's windows, with the first warning that training printed."""
    monitor = CollapseMonitor()
    for window in windows:
        warning = monitor.judge(window)
        if warning:
            return Course(list(windows), int(window["step"]), warning)
    return Course(list(windows), None, None)


def verdict(courses: Mapping[str, Course]) -> str:
    """Which runs collapsed, and whether the monitor warned of these alone."""
    sentences = []
    for name, each in courses.items():
        first, last = each.windows[0]["distinct"], each.windows[-1]["distinct"]
        warned = "no warning" if each.warned_at is None else f"warning at step {each.warned_at}"
        sentences.append(f"{name[0].upper()}{name[1:]}: {warned}, distinct passages {first:.3f} -> {last:.3f}.")
    collapsed = [name for name, each in courses.items() if name != HEALTHY and each.warned_at is not None]
    reproduced = bool(collapsed) and courses[HEALTHY].warned_at is None
    said = "Reproduced" if reproduced else "Not reproduced at this scale"
    return f"{' '.join(sentences)} {said}: a collapse that is provoked and seen, and no alarm in the healthy run."


def _rows(courses: Mapping[str, Course]) -> list[tuple]:
    rows = []
    for name, each in courses.items():
        for metric in MONITORED:
            values = [window[metric] for window in each.windows if metric in window]
            if values:
                rows.append((name, metric, values[0], max(values), values[-1], each.warned_at))
    return rows


def _windows(courses: Mapping[str, Course]) -> list[tuple]:
    return [
        (name, int(w["step"]), w["loss"], *(w.get(metric) for metric in MONITORED), int(w["step"] == each.warned_at))
        for name, each in courses.items()
        for w in each.windows
    ]


def _panels(courses: Mapping[str, Course]) -> list[Panel]:
    marks = [(float(each.warned_at), f"warning: {name}") for name, each in courses.items() if each.warned_at]
    return [
        Panel(
            metric.replace("_", " "),
            {
                name: ([w["step"] for w in each.windows], [w.get(metric) for w in each.windows])
                for name, each in courses.items()
            },
            marks,
        )
        for metric in MONITORED
    ]
