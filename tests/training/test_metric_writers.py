"""Where figures go besides the files: Weights & Biases, played by a stand-in."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rag_jax.errors import InputError
from rag_jax.training.metric_writers import Wandb


class Service:
    """What is used of the `wandb` package: runs that remember."""

    def __init__(self) -> None:
        self.begun, self.heard, self.finished = [], [], 0

    def init(self, **options) -> SimpleNamespace:
        self.begun.append(options)
        return SimpleNamespace(id=options["id"] or "abc", log=self.log, finish=self.finish)

    def log(self, values: dict, step: int) -> None:
        self.heard.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_a_run_that_goes_on_is_the_same_one_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    for step in (1, 2):
        writer = Wandb(tmp_path, "towns", {"steps": 2})
        writer.write(step, {"loss": 0.5})
        writer.close()
    first, second = service.begun
    assert (first["project"], first["id"], first["config"]) == ("towns", None, {"steps": 2})
    assert (second["id"], second["resume"]) == ("abc", "allow")
    assert service.heard == [(1, {"loss": 0.5}), (2, {"loss": 0.5})]
    assert service.finished == 2


def test_without_its_package_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"^watch\.wandb needs Weights & Biases; run pip install wandb"):
        Wandb(tmp_path, "towns", {})
