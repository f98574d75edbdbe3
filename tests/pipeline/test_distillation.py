"""Which distillation a config trains with, and what it refuses in one line."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from rag_jax.config.config import Config, Data, Distillation, Retriever
from rag_jax.config.files import load_config, save_config
from rag_jax.core import distillation as objectives
from rag_jax.errors import InputError
from rag_jax.models import bart, bert
from rag_jax.pipeline import distillation, finetuning
from rag_jax.training import checks
from rag_jax.types import Networks

USUAL = Config(Data(index=Path("index")), Retriever("tower"))
NETWORKS = Networks(
    bert.tower(bert.BertConfig(vocab_size=9, width=8, layers=1, heads=2, ffn_width=16, max_positions=8)),
    bart.generator(bart.BartConfig(vocab_size=9, width=8, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=16)),
)


def config(objective: str = "pdist", retriever: dict | None = None, generator: dict | None = None, **fields) -> Config:
    """With `retriever` as changes of it, those named after a key of the distillation as changes of that."""
    changes = retriever or {}
    inside = {name: changes.pop(name) for name in asdict(Distillation()) if name in changes}
    taught = Distillation(objective, **inside)  # pyright: ignore[reportArgumentType]
    parts = replace(USUAL.retriever, distillation=taught, **changes), replace(USUAL.generator, **generator or {})
    return replace(USUAL, retriever=parts[0], generator=parts[1], **fields)


def test_each_objective_has_its_temperatures() -> None:
    def options(objective: str) -> partial:
        found = distillation.of(config(objective, {"temperature": 2.0, "teacher_temperature": 0.1}), NETWORKS)
        assert isinstance(found, partial)
        return found

    for objective in ("pdist", "loop", "adist", "lsr"):
        assert options(objective).func is getattr(objectives, objective)
        assert options(objective).keywords == {"temperature": 2.0, "teacher_temperature": 0.1}
    assert (options("emdr2").func, options("emdr2").keywords) == (objectives.emdr2, {"temperature": 2.0})
    assert distillation.of(USUAL, NETWORKS) is None


def test_it_trains_the_question_tower_of_fusion_in_decoder() -> None:
    assert finetuning.retriever_mode(replace(USUAL, model="fid")) == "frozen"
    assert finetuning.retriever_mode(config("adist", model="fid")) == "trained"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (config(retriever={"temperature": 0.0}), r"temperature is 0\.0; give more than 0"),
        (
            config(retriever={"teacher_temperature": -1.0}),
            r"teacher_temperature is -1\.0; give more than 0",
        ),
        (config(retriever={"weight": -1.0}), r"weight is -1\.0; give 0 or more"),
        (
            config("none", {"teacher_temperature": 0.1}),
            r"teacher_temperature is 0\.1, but the objective is none; give retriever\.distillation\.objective too, or "
            r"leave it out",
        ),
        (config(retriever={"teacher_temperature": 0.0}), r"teacher_temperature is 0\.0; give more than 0"),
        (
            config("lsr", {"mode": "frozen"}),
            r"objective is lsr, but retriever\.mode is frozen; give it none, or the mode trained",
        ),
        (
            config("lsr", {"mode": "gold"}),
            r"objective is lsr, but retriever\.mode is gold; give it none, or the mode trained",
        ),
        (
            config(data=Data()),
            r"objective is pdist, but a closed-book run has no retriever; give it none, or "
            r"data\.passages",
        ),
        (
            config(generator={"passages_per_prompt": 2}),
            r"objective is pdist, but generator\.passages_per_prompt is 2; give 1, to read each "
            r"by itself",
        ),
        (
            config("loop", {"engine": "bm25"}),
            r"objective is loop, but scores of the engine bm25 are not learnt; give another engine",
        ),
        (
            config("loop", {"num_docs": 1}),
            r"objective is loop, but retriever\.num_docs is 1: there is nothing to compare; give 2 "
            r"or more",
        ),
        (
            config("adist", model="sequence"),
            r"objective is adist, but model sequence does not attend to its passages together; "
            r"give model fid",
        ),
        (
            config("emdr2", {"teacher_temperature": 0.1}),
            r"teacher_temperature is 0\.1, but the objective emdr2 has none; leave it 1",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused(wrong: Config, told: str) -> None:
    with pytest.raises(InputError, match=rf"^retriever\.distillation\.{told}$"):
        checks.check_numbers(wrong)


def test_a_network_that_does_not_report_its_attention_is_refused() -> None:
    silent = NETWORKS._replace(generator=NETWORKS.generator._replace(cross_attention=None))
    with pytest.raises(InputError, match=r"^generator: its network does not report its attention; give it Generator\."):
        distillation.of(config("adist", model="fid"), silent)
    assert distillation.of(config("lsr", model="fid"), silent) is not None


@pytest.mark.parametrize("objective", ["pdist", "emdr2"])
def test_what_can_be_distilled_is_accepted(objective: str) -> None:
    for model in ("token", "sequence", "fid"):
        for engine in ("device", "faiss", "hybrid", "fixed"):
            checks.check_numbers(config(objective, {"engine": engine}, model=model))


def test_a_run_that_began_before_there_was_distillation_is_resumed_without(tmp_path: Path) -> None:
    save_config(USUAL, path := tmp_path / "config.json")
    saved = json.loads(path.read_text())
    del saved["retriever"]["distillation"]
    path.write_text(json.dumps(saved))
    assert load_config(path) == USUAL
    assert checks.check_resumable(USUAL, path) == []
    with pytest.raises(InputError, match=r"retriever\.distillation\.objective was 'none', is 'pdist'"):
        checks.check_resumable(config(), path)
