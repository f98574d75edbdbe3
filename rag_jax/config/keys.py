"""The dotted names of a config's fields: listed, looked up, and suggested for a name that does not exist."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from rag_jax.config.config import Config

ALIASES = {
    # what other libraries call a field, without its prefix
    "accumulate-grad-batches": "compute.accumulate",
    "beams": "decoding.num-beams",
    "bf16": "compute.dtype",
    "bs": "batch-size",
    "checkpoint-every": "save-every",
    "clip-norm": "optimizer.clip",
    "corpus": "data.passages",
    "dev": "data.evaluation",
    "encoder": "retriever.tower",
    "epochs": "steps",
    "eval": "data.evaluation",
    "eval-batch-size": "eval-batch",
    "eval-steps": "eval-every",
    "fp16": "compute.dtype",
    "grad-clip": "optimizer.clip",
    "gradient-accumulation-steps": "compute.accumulate",
    "gradient-checkpointing": "compute.remat",
    "init-from": "start-from",
    "k": "retriever.num-docs",
    "learning-rate": "optimizer.learning-rate",
    "logging-steps": "log-every",
    "lora-alpha": "generator.lora.alpha",
    "lora-r": "generator.lora.rank",
    "lora-rank": "generator.lora.rank",
    "lr": "optimizer.learning-rate",
    "max-grad-norm": "optimizer.clip",
    "max-source-length": "generator.max-input",
    "max-steps": "steps",
    "max-target-length": "generator.max-target",
    "mixed-precision": "compute.dtype",
    "n-docs": "retriever.num-docs",
    "num-epochs": "steps",
    "num-steps": "steps",
    "num-train-epochs": "steps",
    "optim": "optimizer.kind",
    "per-device-train-batch-size": "batch-size",
    "project": "watch.wandb",
    "questions": "data.train",
    "reader": "generator.checkpoint",
    "resume-from": "start-from",
    "save-steps": "save-every",
    "target-modules": "generator.lora.targets",
    "top-k": "retriever.num-docs",
    "train-steps": "steps",
    "vocab-size": "generator.vocabulary",
    "warmup-steps": "optimizer.warmup",
    "wd": "optimizer.weight-decay",
}


_EPOCHS = "an epoch is pairs / batch-size steps"
REMARKS = {
    # on aliases that mean something else there
    "epochs": _EPOCHS,
    "num-epochs": _EPOCHS,
    "num-train-epochs": _EPOCHS,
    "per-device-train-batch-size": "the questions of all devices together",
    "resume-from": "which begins another run; to resume one, run its command again",
}


def names(kind: type = Config, prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields, with underscores as in Python."""
    hints = typing.get_type_hints(kind)
    for each in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[each.name]):
            yield from names(hints[each.name], f"{prefix}{each.name}.")
        else:
            yield prefix + each.name


def value(config: Any, name: str) -> Any:
    """The value of the field with this dotted name."""
    return functools.reduce(getattr, name.split("."), config)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known dotted name that an unknown one most likely means: by `ALIASES`, else by spelling.

    The last part decides, the whole breaks ties: `data.learning-rate` is `optimizer.learning-rate`.
    """
    leaf = _leaf(name)
    names_known = set(known)
    if ALIASES.get(leaf) in names_known:
        return ALIASES[leaf]
    return max(sorted(names_known), key=lambda each: (_similarity(leaf, _leaf(each)), _similarity(name, each)))


def remark(name: str) -> str:
    """What to add to the nearest name of an unknown one; mostly nothing."""
    found = REMARKS.get(_leaf(name))
    return "" if found is None else f" ({found})"


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
