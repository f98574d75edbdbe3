"""The trainings that experiments share: which finished ones are used again."""

import dataclasses
import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.experiments.runs import Run, train
from rag_jax.pipeline.checkpoints import saved_host_state
from rag_jax.training.provenance import START


def test_a_finished_run_is_not_reused_for_another_model(
    towns: Config, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, data = tmp_path / "run", towns.data
    shutil.copytree(trained[2], workdir)
    train(Run("it", towns, workdir))

    text = data.train.read_text()
    (tmp_path / "train.jsonl").write_text(text.replace('"red"', '"RED"'))
    other = dataclasses.replace(towns, data=dataclasses.replace(data, train=tmp_path / "train.jsonl"))
    with pytest.raises(InputError, match=r"run: trained with other training questions \(.*train\.jsonl\); give those"):
        train(Run("it", other, workdir))
    started = dataclasses.replace(towns, start_from=trained[2])
    with pytest.raises(InputError, match=r"run: trained with other parameters to start from \(.*run\); give those"):
        train(Run("it", started, workdir))
    with pytest.raises(InputError, match=r"nowhere: no checkpoint there"):
        train(Run("it", dataclasses.replace(towns, start_from=tmp_path / "nowhere"), workdir))
    with pytest.raises(InputError, match=r"run: trained with other training questions"):
        train(Run("next", started, tmp_path / "next", before=(Run("it", other, workdir),)))
    assert not (tmp_path / "next").exists()

    state = saved_host_state(workdir)
    assert state is not None
    began = state | {"made_of": state["made_of"] | {START: "of another run"}}
    monkeypatch.setattr("rag_jax.training.run.saved_host_state", lambda workdir: began)
    with pytest.raises(InputError, match=r"run: trained with other parameters to start from; give those"):
        train(Run("it", towns, workdir))
