"""`rag-jax compare`: whether one model answers the same questions better than another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from rag_jax.config.command_line import parse
from rag_jax.data import outputs, strict_json
from rag_jax.data.files import disk_errors, replace_file
from rag_jax.errors import InputError
from rag_jax.evaluation import comparison_report
from rag_jax.evaluation.compare import RESAMPLES, common_metrics, compare_systems, most_different
from rag_jax.evaluation.score_file import read_evaluations
from rag_jax.pipeline import user_inputs
from rag_jax.terminal import Terminal

FORMATS = (".json", ".md")
MIN_RESAMPLES, MAX_RESAMPLES = 100, 1_000_000  # of fewer, the ends of an interval are a handful; more take hours


@dataclass(frozen=True)
class CompareCommand:
    """Compare evaluations of the same questions with the first of them."""

    evaluations: tyro.conf.Positional[tuple[Path, ...]]  # folders of rag-jax evaluate, or their scores.jsonl
    names: tuple[str, ...] = ()  # of the systems, in the same order; none: those of the folders
    metric: tuple[str, ...] = ()  # none: exact_match and f1 where all have them, else all that can be compared
    all_pairs: bool = False  # compare all pairs instead
    resamples: int = RESAMPLES  # of the bootstrap and of the permutation test
    seed: int = 0
    show: int = 10  # questions that differ most
    output: Path | None = None  # a new file, .json or .md

    def run(self) -> None:
        """Compare and print."""
        self._check()
        evaluations = read_evaluations(self.evaluations, self.names)
        metrics = common_metrics(evaluations, self.metric)
        report = comparison_report.Report(
            evaluations,
            metrics,
            compare_systems(evaluations, metrics, self.all_pairs, self.resamples, self.seed),
            most_different(evaluations, metrics, self.show, self.all_pairs),
            self.resamples,
            self.seed,
        )
        comparison_report.show(Terminal(), report)
        if self.output is not None:
            _write(self.output, report)

    def _check(self) -> None:
        if not MIN_RESAMPLES <= self.resamples <= MAX_RESAMPLES:
            allowed = f"give {MIN_RESAMPLES} to {MAX_RESAMPLES:,}, 10,000 for a report"
            raise InputError(f"--resamples is {self.resamples}; {allowed}")
        user_inputs.seed(self.seed)
        if self.show < 0:
            raise InputError(f"--show is {self.show}; give 0 or more")
        if self.output is not None:
            if self.output.suffix not in FORMATS:
                raise InputError(f"{self.output}: not a format of reports; name a file that ends in .json or .md")
            outputs.check_new(self.output)


def _write(path: Path, report: comparison_report.Report) -> None:
    if path.suffix == ".md":
        text = comparison_report.markdown(report)
    else:
        text = strict_json.dumps(comparison_report.as_json(report), indent=2, ensure_ascii=False) + "\n"
    outputs.check_new(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [text])


def compare(arguments: Sequence[str]) -> None:
    """`rag-jax compare`."""
    parse(CompareCommand, arguments, remedy="rag-jax compare --help lists all options", prog="rag-jax compare").run()
