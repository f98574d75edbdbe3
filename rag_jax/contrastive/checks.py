"""Checks of a contrastive run before anything is loaded, compiled or written."""

from math import inf, lcm
from pathlib import Path

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.data import validation
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.pipeline import own_index
from rag_jax.pipeline.checkpoints import is_finished
from rag_jax.training.checks import Bounds, check_bounds, check_resumable
from rag_jax.training.workdir import CONFIG, check_ownership

COUNTS = (
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "compute.accumulate"),
    *("steps", "batch_size", "log_every", "save_every", "eval_every", "max_bad_steps", "data.passage_words"),
    *("retriever.max_question", "retriever.max_passage", "contrastive.chunk", "contrastive.length_groups"),
)
BOUNDS: Bounds = (
    (COUNTS, lambda value: value >= 1, "give 1 or more"),
    (("contrastive.temperature", "retriever.vector_norm"), lambda value: 0 < value < inf, "give more than 0"),
    (("contrastive.hard_negatives", "optimizer.warmup"), lambda value: value >= 0, "give 0 or more"),
    (("optimizer.learning_rate", "optimizer.weight_decay"), lambda value: 0 <= value < inf, "give 0 or more"),
    (("contrastive.margin_mse", "retriever.interpolation"), lambda value: 0 <= value <= 1, "give 0 to 1"),
    (("retriever.dropout",), lambda value: 0 <= value < 1, "give 0 or more, below 1"),
    (("optimizer.clip",), lambda value: value > 0, "give more than 0; inf clips nothing"),
    (("seed",), lambda value: 0 <= value < 2**32, "give 0 to 2**32 - 1"),
)
UNUSED = {"accumulate": 1, "prefill_chunk": None}  # options of `compute` that only a generator has


def check(config: ContrastiveConfig, workdir: Path) -> list[str]:
    """Reject a config that cannot run in this workdir. Returns a line per key changed since the run started."""
    check_values(config)
    devices.check(config)
    check_ownership(workdir)
    _check_index(config, workdir)
    return check_resumable(config, workdir / CONFIG)


def _check_index(config: ContrastiveConfig, workdir: Path) -> None:
    """Reject an index where the run writes its own."""
    own, given = workdir / "index", config.data.index
    if given is not None and given.resolve() == own.resolve():
        problem = "data.index is where the run writes the index of its own towers"
        raise InputError(f"{own}: {problem}; move that index, or choose another --workdir")
    if not is_finished(workdir, config.steps):
        own_index.check(own)


def check_values(config: ContrastiveConfig) -> None:
    """Reject invalid hyperparameters and values of the wrong type."""
    validation.validate_dataclass(ContrastiveConfig, config)
    check_bounds(config, BOUNDS)
    for name, default in UNUSED.items():
        if getattr(config.compute, name) != default:
            remedy = "contrastive.chunk saves memory" if name == "accumulate" else "leave it out"
            raise InputError(f"compute.{name} is {getattr(config.compute, name)}, of a generator's training; {remedy}")
    c, retriever = config.contrastive, config.retriever
    if config.batch_size == 1 and c.hard_negatives == 0:
        problem = "batch_size is 1 without hard negatives, which leaves nothing to contrast a passage with"
        raise InputError(f"{problem}; raise it, or contrastive.hard_negatives")
    if c.margin_mse and (c.hard_negatives == 0 or config.data.negatives is None):
        missing = "data.negatives is not given" if c.hard_negatives else "contrastive.hard_negatives is 0"
        problem = f"contrastive.margin_mse is {c.margin_mse}, and {missing}"
        raise InputError(
            f"{problem}: a teacher's scores are those of hard negatives in a file; name one, or set it to 0"
        )
    if retriever.trained == "shared" and retriever.passage_tower is not None:
        problem = f"retriever.trained is shared, retriever.passage_tower {retriever.passage_tower}"
        raise InputError(f"{problem}: one tower encodes both; leave one of them out")
    if c.widths and min(c.widths) < 1:
        raise InputError(f"contrastive.widths are {c.widths}; give 1 or more")
    _check_batch(config)


def check_widths(config: ContrastiveConfig, width: int) -> None:
    """Reject Matryoshka widths beyond that of the towers' vectors."""
    if max(config.contrastive.widths, default=0) > width:
        problem = f"contrastive.widths are {config.contrastive.widths}, the towers' vectors have width {width}"
        raise InputError(f"{problem}; give {width} at most")


def _check_batch(config: ContrastiveConfig) -> None:
    """Reject a batch whose questions or passages do not divide into length groups, chunks and devices."""
    c, shares = config.contrastive, config.mesh.data * config.mesh.fsdp
    piece = lcm(shares, c.chunk or 1)
    passages = config.batch_size * (1 + c.hard_negatives)
    if passages % (c.length_groups * piece):
        what = f"{passages} passages (batch_size x (1 + contrastive.hard_negatives)) do not divide into"
        parts = f"{c.length_groups} contrastive.length_groups of a multiple of {piece} (contrastive.chunk, devices)"
        raise InputError(f"{what} {parts}; change one of them")
    if config.batch_size % piece:
        what = f"batch_size {config.batch_size} is no multiple of {piece} (contrastive.chunk, devices)"
        raise InputError(f"{what}; change one of them")
