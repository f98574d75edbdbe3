"""Training with stale retrieval: a search on the host may lag some steps behind the question tower.

It then runs while the device trains. What is measured is what the lag costs in quality, and gains in time. The search
is exact (FAISS "Flat"), so that the lag is the only difference.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from rag_jax.errors import InputError
from rag_jax.experiments import charts, options
from rag_jax.experiments.arms import measure_arms, runs_of
from rag_jax.experiments.charts import Panel
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import Run, last_loss, rag_run, seconds_per_step, train
from rag_jax.experiments.scores import COLUMNS, recall_at_1
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.index import manifest
from rag_jax.index.engines import store_engines
from rag_jax.index.store import open_store
from rag_jax.pipeline.assembly import open_components, read_corpus
from rag_jax.pipeline.assembly import prepare as prepare_components
from rag_jax.training.run import tell_encoded

ENGINE, FACTORY = "faiss", "Flat"
LOST = 0.01  # exact match


def plan(given: options.Staleness) -> Plan:
    """The plan of the runs. Raises `InputError` as `check`."""
    setup = prepare(given)
    check(setup, given.lags)
    return Plan(runs(setup, given.lags), setup.write_data, partial(measure, setup, given.lags))


def check(setup: Setup, lags: Sequence[int]) -> None:
    """Raise `InputError` for invalid lags, and for an index of the user's own without FAISS, which is not changed."""
    if not lags or min(lags) < 0 or len(set(lags)) < len(lags):
        raise InputError(f"--lags are {' '.join(map(str, lags)) or 'none'}; give different numbers of 0 or more")
    index = setup.config.data.index
    if index is None or index.is_relative_to(setup.workdir):
        return
    engines = manifest.read(index).engines if (index / manifest.FILE).exists() else {}
    if engines.get(ENGINE, {}).get("factory") != FACTORY:
        remedy = f"build one with rag-jax index --out {index} --faiss {FACTORY}"
        raise InputError(f"{index}: has no exact index of FAISS; {remedy}")


def runs(setup: Setup, lags: Sequence[int]) -> list[Run]:
    """A run for each lag and seed."""
    return runs_of(setup, sorted(lags), partial(_run, setup))


def measure(setup: Setup, lags: Sequence[int]) -> Report:
    """Train with each lag, and measure what came of it."""
    questions, lags = setup.questions(), sorted(lags)
    _add_faiss(_run(setup, lags[0], 0))
    found = measure_arms(
        setup,
        lags,
        partial(_run, setup),
        lambda run, rag: (recall_at_1(rag, questions), last_loss(run), seconds_per_step(run)),
    )
    summaries, means = {lag: found[lag].summary for lag in lags}, {lag: found[lag].facts for lag in lags}
    title = "Training with stale retrieval"
    return Report(
        title=title,
        table=Table(
            ("lag", *COLUMNS, "recall@1", "loss", "seconds per step"),
            [(lag, *summaries[lag], *means[lag]) for lag in lags],
        ),
        paper="retrieval is never stale: the index is fixed and each step searches with the current question tower. "
        "(REALM refreshes its index asynchronously, since it trains the passage tower too.)",
        found=verdict({lag: each.mean for lag, each in summaries.items()}, {lag: means[lag][2] for lag in lags}),
        draw=partial(charts.lines, title=title, panels=_panels(lags, summaries, means), xlabel="lag (steps)", log=True),
        runs=runs(setup, lags),
        questions=len(questions),
        seeds=setup.seeds,
        notes=("Loss is the mean of the last quarter of the steps, seconds the median of the windows of steps.",),
    )


def verdict(matches: Mapping[int, float], seconds: Mapping[int, float]) -> str:
    """What the largest lag without a loss is, and what it gains in time."""
    least = min(matches)
    safe = max(lag for lag in matches if matches[least] - matches[lag] <= LOST)
    worst = min(matches, key=lambda lag: matches[lag])
    said = f"Exact match is {matches[least]:.3f} at lag {least} and {matches[worst]:.3f} at worst (lag {worst})."
    tolerated = (
        f"The largest lag that costs at most {LOST} is {safe}; its steps take {seconds[safe]:.3f} s, "
        f"those at lag {least} {seconds[least]:.3f} s."
    )
    return f"{said} {tolerated} Nothing to reproduce: the paper has no such experiment."


def _run(setup: Setup, lag: int, seed: int) -> Run:
    return rag_run(setup, "token", seed, name=f"staleness-{lag}", engine=ENGINE, staleness=lag)


def _add_faiss(run: Run) -> None:
    """Build the index of the runs and add FAISS, unless that is done."""
    index = run.config.data.index
    assert index is not None
    if not (index / manifest.FILE).exists():
        for each in run.before:  # their tokenizer is that of the index
            train(each)
        open_components(prepare_components(run.config, run.workdir, read_corpus(run.config)), run.workdir, tell_encoded)
    store = open_store(index, None, None)
    if store.manifest is not None and ENGINE not in store.manifest.engines:
        store_engines.add_faiss(store, FACTORY, store_engines.passage_queries(store))


def _panels(lags: Sequence[int], summaries: Mapping, means: Mapping[int, Sequence[float]]) -> list[Panel]:
    quality = {
        "exact match": (lags, [summaries[lag].mean for lag in lags]),
        "recall@1": (lags, [means[lag][0] for lag in lags]),
    }
    loss, seconds = ({"": (lags, [means[lag][place] for lag in lags])} for place in (1, 2))
    return [Panel("quality", quality), Panel("loss", loss), Panel("seconds per step", seconds)]
