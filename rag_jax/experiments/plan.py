"""What an experiment is going to do, once its options are known to be right."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rag_jax.experiments.report import Report
from rag_jax.experiments.runs import Run


class Plan(NamedTuple):
    """The trainings of an experiment, and its measurement; nothing is written before they start."""

    runs: Sequence[Run]
    write_data: Callable[[], None]  # writes what the runs read, where it is not there yet
    measure: Callable[[], Report]  # trains what is not trained yet
