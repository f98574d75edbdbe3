"""Which towers a contrastive run trains: two, a shared one, that of the questions alone, decoder-only ones."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import bi_encoders
from bi_encoders import params, same
from rag_jax import cli, hub
from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive import run
from rag_jax.contrastive.run import train_and_evaluate
from rag_jax.index.store import open_store
from rag_jax.models import decoder
from rag_jax.models.decoder_tower import DecoderTowerConfig
from rag_jax.models.rope import Rope

pytestmark = pytest.mark.extended  # a training each


@pytest.fixture(scope="module")
def config(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> ContrastiveConfig:
    return bi_encoders.config(towns, tmp_path_factory.mktemp("contrastive"))


def test_a_shared_tower_is_one_folder_and_reads_both(config: ContrastiveConfig, tmp_path: Path) -> None:
    shared = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, trained="shared"))
    train_and_evaluate(shared, tmp_path / "run")
    checkpoint = hub.load_tower(tmp_path / "run" / "towers")
    assert checkpoint.side is None
    assert checkpoint.input_format.passage == "{title}. {text}"


def test_a_shared_tower_that_reads_pairs_is_asked_questions_too(
    config: ContrastiveConfig, tmp_path: Path, capsys
) -> None:
    pairs = dataclasses.replace(config.retriever, trained="shared", passage_template="pair")
    train_and_evaluate(dataclasses.replace(config, retriever=pairs, steps=2), tmp_path / "run")
    cli.main(["search", "what colour is Norburg", "--index", str(tmp_path / "run" / "index")])
    assert "Norburg" in capsys.readouterr().out


def test_the_question_tower_alone_leaves_the_passages_as_they_are(config: ContrastiveConfig, tmp_path: Path) -> None:
    alone = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, trained="question"))
    train_and_evaluate(alone, tmp_path / "run")
    start = params(Path(config.retriever.tower))
    assert same(params(tmp_path / "run" / "towers" / "passage"), start)
    assert not same(params(tmp_path / "run" / "towers" / "question"), start)


@pytest.mark.parametrize("trained", ["both", "question"])
def test_towers_between_the_checkpoints_and_the_trained_ones(
    config: ContrastiveConfig, tmp_path: Path, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished run too, which is not trained again; another run starts from what was saved."""
    retriever = dataclasses.replace(config.retriever, trained=trained)
    config = dataclasses.replace(config, retriever=retriever, data=dataclasses.replace(config.data, index=None))
    found = train_and_evaluate(config, tmp_path / "run")
    assert found is not None
    folders = {name: tmp_path / "run" / "towers" / name for name in ("question", "passage")}
    ends, start = {name: params(folder) for name, folder in folders.items()}, params(Path(config.retriever.tower))
    between = dataclasses.replace(config, retriever=dataclasses.replace(retriever, interpolation=0.25))
    with monkeypatch.context() as patched:
        patched.setattr(run, "train", None)
        again = train_and_evaluate(between, tmp_path / "run")
    assert again is not None
    for name, folder in folders.items():
        expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, start, ends[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params(folder), expected)
    assert same(params(folders["passage"]), start) == (trained == "question"), "equal ones keep their bits"
    store = open_store(again.index_folder, None, None)
    assert store.manifest is not None
    assert store.manifest.tower["source"] == str(folders["passage"])

    later = dataclasses.replace(config, start_from=tmp_path / "run", steps=1)
    later = dataclasses.replace(later, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.0))
    train_and_evaluate(later, tmp_path / "later")
    assert same(params(tmp_path / "later" / "towers" / "question"), params(folders["question"]))


@pytest.mark.parametrize("trained", ["shared", "both"])
def test_a_decoder_only_tower_learns_by_its_last_token(config: ContrastiveConfig, tmp_path: Path, trained: str) -> None:
    words = hub.load_tower(config.retriever.tower)
    sizes = DecoderTowerConfig(
        words.config.vocab_size, width=32, decoder_layers=1, heads=4, kv_heads=2, ffn_width=64, max_positions=16,
        rope=Rope(100.0), model_type="llama", pooling="last", vector_norm=1.0, init_std=0.1
    )  # fmt: skip
    start = hub.TowerCheckpoint(
        sizes, decoder.init(sizes, jax.random.key(1)), words.tokenizer, tokenizer_settings=words.tokenizer_settings
    )
    hub.save(tmp_path / "tower", start)
    retriever = dataclasses.replace(config.retriever, tower=str(tmp_path / "tower"), trained=trained)
    workdir, results = bi_encoders.finished(dataclasses.replace(config, retriever=retriever), tmp_path / "run")
    assert results["recall@1"] > 0.9
    saved = hub.load_tower(workdir / "towers" / ("" if trained == "shared" else "question"))
    assert saved.config == sizes
    assert not same(saved.params, start.params)
