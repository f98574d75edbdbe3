"""The trainings that experiments share, each in a folder of its own: `WORKDIR/runs/NAME`.

A finished run is not trained again, and an interrupted one is resumed. A run with the name of another config's is
refused, and one of other networks, training questions or parameters to start from, so that no experiment measures a
model it did not ask for.
"""

import dataclasses
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rag_jax.config.config import Config, Distillation, Lora
from rag_jax.config.files import load_config
from rag_jax.core.variants import Model
from rag_jax.data.validation import Positive, Rate
from rag_jax.errors import InputError
from rag_jax.experiments.setup import Setup
from rag_jax.index.engines.registry import ENGINES
from rag_jax.pipeline import finetuning
from rag_jax.pipeline.checkpoints import is_finished
from rag_jax.rag import RAG
from rag_jax.terminal import Terminal
from rag_jax.training.checks import check
from rag_jax.training.metric_logger import METRICS, TIMINGS, read_lines
from rag_jax.training.run import check_begun, fit

UNTRAINED: dict[str, Any] = {
    # what only a retriever that is trained may say
    "mode": "frozen",
    "train": None,
    "lora": Lora(),
    "distillation": Distillation(),
    "prior_docs": None,
    "train_passages": False,
    "refresh_every": None,
    "refresh_at_once": False,
    "candidates": None,
}
RetrieverName = Literal["BM25", "frozen", "trained"]
RETRIEVERS: dict[RetrieverName, dict[str, Any]] = {
    # fields of the config's retriever; BM25's scores are the logits of the prior, as in the paper
    "BM25": UNTRAINED | {"engine": "bm25", "staleness": 0},
    "frozen": UNTRAINED,
    "trained": {"mode": "trained"},
}
MODELS: dict[Model, str] = {"token": "RAG-Token", "sequence": "RAG-Sequence"}
console = Terminal()
WINDOWS = 40  # lines of metrics in a run
LAST = 0.25  # of the steps, whose metrics are reported


class Run(NamedTuple):
    """A training: its name, its config, and the runs that it needs before."""

    name: str
    config: Config
    workdir: Path
    before: tuple["Run", ...] = ()


def rag_run(
    setup: Setup,
    model: Model,
    seed: int,
    retriever: RetrieverName = "trained",
    name: str = "",
    learn_to_read: bool = True,
    tower_rate: float = 1.0,
    after: Run | None = None,
    **changes: Any,
) -> Run:
    """The run of a RAG model.

    Args:
        seed: the number of the run, from 0; its seed is that of the config plus this.
        name: instead of that of model and retriever.
        learn_to_read: start from the first stage, where there is one.
        tower_rate: factor of the question tower's learning rate.
        after: the run to start from, instead of the first stage.
        changes: further fields of the config's retriever.
    """
    config = setup.config
    before = (reader_run(setup, seed),) if learn_to_read and setup.reader is not None else ()
    before = (after,) if after is not None else before
    start = before[0].workdir if before else config.start_from
    optimizer = config.optimizer
    config = dataclasses.replace(
        config,
        model=model,
        retriever=dataclasses.replace(config.retriever, **(RETRIEVERS[retriever] | changes)),
        optimizer=dataclasses.replace(optimizer, tower_learning_rate=tower_rate * optimizer.tower_learning_rate),
        decoding=dataclasses.replace(config.decoding, method="thorough"),
        start_from=start if learn_to_read else None,
    )
    is_dense = not ENGINES[config.retriever.engine].scores_are_prior
    if retriever == "trained" and is_dense and finetuning.retriever_mode(config) != "trained":
        problem = "its loss does not depend on what the question tower finds: one passage is read, or all together"
        raise InputError(f"the retriever of {model} is to be trained, and {problem}; give another --config")
    return _run(setup, name or f"{model}-{retriever.lower()}", config, seed, before)


def reader_run(setup: Setup, seed: int) -> Run:
    """The run of the first stage. Requires `setup.reader`."""
    assert setup.reader is not None
    return _run(setup, "reader", setup.reader, seed)


def closed_book_run(setup: Setup, seed: int) -> Run:
    """The run of the closed-book baseline. Requires `setup.closed_book`."""
    assert setup.closed_book is not None
    return _run(setup, "closed-book", setup.closed_book, seed)


def check_runs(runs: Iterable[Run]) -> None:
    """Raise `InputError` for a run that cannot start in its folder, before any of them is trained.

    A run of fewer steps could be extended, but not those that started from it, or are compared with it.
    """
    for run in in_order(runs):
        check(run.config, run.workdir)
        saved = run.workdir / "config.json"
        if saved.exists() and (steps := load_config(saved).steps) != run.config.steps:
            problem = f"a run of {steps:,} steps, and the config has {run.config.steps:,}"
            raise InputError(f"{run.workdir}: {problem}; choose another --workdir")


def train(run: Run) -> RAG:
    """The model of a run. What is not trained yet is trained, the runs that it needs first.

    Raises `InputError` for one of these runs that began with something else than its config names.
    """
    is_done = is_finished(run.workdir, run.config.steps)
    for each in run.before:
        if not is_done and not is_finished(each.workdir, each.config.steps):
            train(each)
    for each in in_order([run]):
        check_begun(each.config, each.workdir)
    if not is_done:
        console.print(f"run {run.name}: {run.config.steps:,} steps", highlight=False)
    return fit(run.config, run.workdir)


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and those that they need, each once, in the order in which they are trained."""
    ordered: dict[str, Run] = {}
    for run in runs:
        ordered |= {each.name: each for each in (*in_order(run.before), run)}
    return list(ordered.values())


def metrics(run: Run) -> list[dict[str, float]]:
    """The lines of a finished run's metrics; values that were not finite are left out."""
    lines = [line for line in read_lines(run.workdir / METRICS) if "loss" in line]
    for line in lines:
        for name in line:
            line.read(name, float | None)
    return [{name: value for name, value in line.items() if value is not None} for line in lines]


def seconds_per_step(run: Run) -> float:
    """The median over the windows of a run's timings, which leaves out the compilation in the first."""
    rates, before = [], 0
    for line in read_lines(run.workdir / TIMINGS):
        rates.append(line.read("seconds", Rate) / max(1, line["step"] - before))
        before = line["step"]
    return sorted(rates)[len(rates) // 2]


def mean_seconds_per_step(run: Run) -> float:
    """The mean over the windows but the first, which has the compilation: with what only some of the steps do."""
    first, *rest = read_lines(run.workdir / TIMINGS)
    return sum(line.read("seconds", Rate) for line in rest) / max(1, run.config.steps - first["step"])


def flops_per_step(run: Run) -> float:
    """The model FLOPs of a step, the mean of the last window."""
    *_, last = read_lines(run.workdir / TIMINGS)
    return last.read("model_flops/s", Rate) / last.read("examples/s", Positive) * run.config.batch_size


def last_loss(run: Run) -> float:
    """The mean loss of the last steps."""
    return statistics.fmean(window["loss"] for window in last_windows(run))


def last_windows(run: Run) -> list[dict[str, float]]:
    """The metrics of the last quarter of the steps."""
    windows = metrics(run)
    return [window for window in windows if window["step"] > (1 - LAST) * windows[-1]["step"]]


def _run(setup: Setup, name: str, config: Config, seed: int, before: tuple[Run, ...] = ()) -> Run:
    config = dataclasses.replace(
        config,
        seed=config.seed + seed,
        closed_book=None,
        eval_every=None,
        log_every=min(config.log_every, max(1, config.steps // WINDOWS)),
    )
    name = f"{setup.prefix}{name}-{seed}"
    return Run(name, config, setup.workdir / "runs" / name, before)
