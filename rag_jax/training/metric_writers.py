"""Metric writers: TensorBoard event files, Weights & Biases."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rag_jax.data.files import write_atomically
from rag_jax.errors import InputError


class MetricWriter(Protocol):
    """Writes scalars by step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in WORKDIR/tensorboard; events after `first_step` from an earlier start are purged."""

    def __init__(self, workdir: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run in a Weights & Biases project; a resumed run continues the same one."""

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise InputError("watch.wandb needs Weights & Biases; run pip install wandb, or leave it out") from None
        kept = workdir / "wandb.txt"
        name = kept.read_text(encoding="utf-8").strip() if kept.exists() else None
        self._run = wandb.init(project=project, id=name, resume="allow", config=dict(config), dir=str(workdir))
        write_atomically(kept, f"{self._run.id}\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
