"""A run with a T5 from scratch: it learns in every way that layers are computed, and goes out as a RAG checkpoint."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from transformers import RagTokenForGeneration

import rag_jax
from rag_jax.config.config import Compute, Config
from rag_jax.errors import InputError
from rag_jax.training.run import train_and_evaluate

QUESTIONS = ["what colour is Norburg", "what colour is Goldau"]


def with_t5(config: Config, **changes) -> Config:
    generator = dataclasses.replace(config.generator, architecture="t5", lengths=(16,), dropout=0.05)
    return dataclasses.replace(config, generator=generator, steps=40, save_every=40, log_every=10, **changes)


@pytest.fixture(scope="module")
def trained(towns: Config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("t5") / "run"
    compute = Compute(dtype="bfloat16", scan=True, remat="full")
    train_and_evaluate(with_t5(towns, compute=compute), workdir)
    return workdir


@pytest.mark.extended
def test_the_loss_falls(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.extended
def test_it_goes_out_as_a_rag_checkpoint_and_comes_in_again(trained, tmp_path):
    rag = rag_jax.RAG.from_workdir(trained)
    rag.save_pretrained(tmp_path / "saved")
    again = rag_jax.RAG.from_pretrained(tmp_path / "saved", index=trained / "index")
    jax.tree.map(np.testing.assert_array_equal, again.params.generator, rag.params.generator)
    before, after = (each.answer(QUESTIONS, num_docs=2, num_beams=2) for each in (rag, again))
    assert [answer.text for answer in before] == [answer.text for answer in after]
    stored = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert stored["decoder_start_token_id"] == stored["pad_token_id"]
    assert "bos_token_id" not in stored
    back, told = RagTokenForGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not [name for found in told.values() for name in found if "generator" in name]
    assert back.generator.config.model_type == "t5"


def test_fused_attention_is_refused_because_of_the_position_bias(towns, tmp_path):
    config = with_t5(towns, compute=Compute(attention="fused"))
    with pytest.raises(InputError, match=r"does not support compute\.attention fused; leave it plain$"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
