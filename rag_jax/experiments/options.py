"""The options of the experiments, as dataclasses that a command line fills in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CITIES = "cities"
DEFAULT_WORKDIR = Path("runs/experiments")


@dataclass(frozen=True)
class Options:
    """What all experiments take."""

    config: str = CITIES  # the config to train, by its name or file; cities brings its own data
    reader: str | None = None  # config of a first stage, which config starts from; None: as config.start_from says
    workdir: Path = DEFAULT_WORKDIR  # receives data, index and runs, which experiments share, and a folder for each


@dataclass(frozen=True)
class Measured(Options):
    """What experiments take that measure models on questions."""

    seeds: int = 3  # runs of each training, whose seeds follow that of the config
    questions: int | None = None  # measure on the first so many evaluation questions; None: on all


@dataclass(frozen=True)
class WithBaseline(Measured):
    """What experiments take that compare with a model without passages."""

    closed_book: str | None = None  # config of the closed-book baseline; None: the trained model without its passages


@dataclass(frozen=True)
class Ablation(WithBaseline):
    """BM25, frozen and trained retriever, with RAG-Token and RAG-Sequence, beside their bounds."""


@dataclass(frozen=True)
class KSweep(Measured):
    """Exact match and answer recall over K, the passages read."""

    ks: tuple[int, ...] = (1, 2, 5, 10, 20, 50)  # values of K


@dataclass(frozen=True)
class HotSwap(Measured):
    """The same model over two versions of the world, asked for the facts of either."""

    other_passages: Path | None = None  # the second version of data.passages; the cities bring theirs
    other_questions: Path | None = None  # the questions of data.evaluation, with the answers of that version


@dataclass(frozen=True)
class Diversity(WithBaseline):
    """Distinct trigrams of generated texts, with passages and without."""


@dataclass(frozen=True)
class Posterior(Options):
    """Which passage each token of an answer came from."""

    question: str | None = None  # to answer
    model_workdir: Path | None = None  # folder of a trained run; None: the first run of RAG-Token of the experiments
    num_docs: int | None = None  # K, the passages to read; None: 5, or as many as there are


@dataclass(frozen=True)
class Collapse(Options):
    """A healthy run beside runs whose retrieval is made to collapse, as the monitors see them."""

    rate_factor: float = 100.0  # by which the question tower's learning rate is too high


@dataclass(frozen=True)
class Distillation(Measured):
    """The marginal likelihood, and each distillation from the reader, as what the question tower learns from."""

    objectives: tuple[Literal["emdr2", "pdist", "loop", "lsr", "adist"], ...] = (
        "emdr2",
        "pdist",
        "loop",
        "lsr",
        "adist",
    )


@dataclass(frozen=True)
class Refresh(Measured):
    """Both towers trained, with the index refreshed in every step or all at once, beside a frozen index."""

    every: int = 100  # steps in which every passage is encoded again
    from_scratch: bool = True  # the towers start from random weights, in the sizes of the config's
    contrastive_steps: int = 10  # steps on gold passages that they take before: what random towers find teaches nothing
    rate_factor: float = 1.0  # of the towers' learning rate


@dataclass(frozen=True)
class Staleness(Measured):
    """Training with a search that lags behind the question tower."""

    lags: tuple[int, ...] = (0, 1, 4, 16, 64)  # steps, retriever.staleness
