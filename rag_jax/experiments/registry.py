"""The experiments by name, and the steps that all of them take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.demo.requirements import check_requirements
from rag_jax.experiments import (
    ablation,
    collapse,
    distillation,
    diversity,
    hot_swap,
    k_sweep,
    options,
    posterior,
    refresh,
    report,
    staleness,
)
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, own_folder
from rag_jax.experiments.runs import check_runs


class Experiment(NamedTuple):
    """An experiment: its options, and what it does with them."""

    options: type[options.Options]
    plan: Callable[[Any], Plan]  # writes nothing; raises `InputError` for invalid options


EXPERIMENTS = {
    "ablation": Experiment(options.Ablation, ablation.plan),
    "k-sweep": Experiment(options.KSweep, k_sweep.plan),
    "hot-swap": Experiment(options.HotSwap, hot_swap.plan),
    "diversity": Experiment(options.Diversity, diversity.plan),
    "posterior": Experiment(options.Posterior, posterior.plan),
    "collapse": Experiment(options.Collapse, collapse.plan),
    "distillation": Experiment(options.Distillation, distillation.plan),
    "refresh": Experiment(options.Refresh, refresh.plan),
    "staleness": Experiment(options.Staleness, staleness.plan),
}


def conduct(name: str, given: options.Options, command: str) -> tuple[Report, Path]:
    """Check, train, measure, and write the report; returns it, and its folder.

    Args:
        command: that the report names.

    Raises `InputError` for invalid options, and for folders that are not those of experiments, before it writes.
    """
    check_requirements(("matplotlib",), ())
    plan, target = EXPERIMENTS[name].plan(given), given.workdir / name
    own_folder(given.workdir).check()
    own_folder(target).check(report.file_names(name))
    check_runs(plan.runs)
    own_folder(given.workdir).claim()
    own_folder(target).claim()
    plan.write_data()
    found = plan.measure()
    report.write(found, name, target, command)
    return found, target
