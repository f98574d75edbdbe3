"""A trained workdir becomes a checkpoint of transformers and a workdir again, and says the same all along."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from transformers import RagTokenForGeneration

import oracle
from oracle import relative, torch
from rag_jax import cli
from rag_jax.config.files import load_config
from rag_jax.errors import InputError
from rag_jax.models import bart
from rag_jax.pipeline.convert import convert
from rag_jax.rag import RAG
from rag_jax.training.start import start_params
from suites import first

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal", "Goldsee", "Neuort")]


class Places(NamedTuple):
    """What stands where."""

    rag: RAG  # as it was trained
    index: Path
    folder: Path  # the checkpoint that it became
    workdir: Path  # what that became


@pytest.fixture(scope="module")
def places(trained, tmp_path_factory) -> Places:
    rag, _, workdir = trained
    made = tmp_path_factory.mktemp("converted")
    convert(str(workdir), made / "rag")
    convert(str(made / "rag"), made / "workdir")
    return Places(rag, workdir / "index", made / "rag", made / "workdir")


def from_folder(places: Places) -> RAG:
    return RAG.from_pretrained(places.folder, places.index)


def from_workdir(places: Places) -> RAG:
    return RAG.from_workdir(places.workdir, places.index)


@pytest.mark.parametrize("opened", first(1, [from_workdir, from_folder]))
def test_converted_models_answer_alike(places: Places, opened) -> None:
    rag = opened(places)
    for one, other in zip(places.rag.answer(ASKED), rag.answer(ASKED), strict=True):
        assert one.text == other.text
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-6)
        assert [passage.id for passage in one.passages] == [passage.id for passage in other.passages]
    jax.tree.map(np.testing.assert_array_equal, rag.params, places.rag.params)


def test_transformers_loads_it_whole(places: Places) -> None:
    model, told = RagTokenForGeneration.from_pretrained(places.folder, output_loading_info=True)
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert {name for name in told["missing_keys"] if "question_encoder.pooler." not in name} == set()
    config = places.rag.components.generator.config
    inputs = oracle.tokens(np.random.default_rng(0), 3, 12, config.vocab_size, oracle.BART_PAD)
    starts = np.asarray([[0, 7, 9], [0, 5, 6], [0, 8, 8]])
    with torch.no_grad():
        theirs = model.generator(**oracle.torch_inputs(inputs), decoder_input_ids=torch.tensor(starts)).logits.numpy()
    generator = bart.generator(config)

    @oracle.jit
    def logits(params, inputs, starts):
        states, _ = generator.decode(params, starts, generator.encode(params, inputs))
        return generator.logits(params, states)

    assert relative(logits(places.rag.params.generator, inputs, starts.astype(np.int32)), theirs) < 1e-5


def test_training_starts_from_what_was_converted(places: Places, towns, tmp_path: Path) -> None:
    start = dataclasses.replace(towns, start_from=places.workdir, steps=1)
    components = dataclasses.replace(places.rag.components, config=start)
    jax.tree.map(np.testing.assert_array_equal, start_params(components, begun=False), places.rag.params)


def test_the_new_workdir_names_where_its_networks_are_from(places: Places) -> None:
    config = load_config(places.workdir / "config.json")
    assert config.retriever.tower == config.generator.checkpoint == str(places.folder)
    held = ["checkpoints", "config.json", "fingerprints.json", "tokenizer.json"]
    assert sorted(path.name for path in places.workdir.iterdir()) == held
    assert [path.name for path in (places.workdir / "checkpoints").iterdir()] == ["0"]


def test_convert_prints_what_stands_for_what_and_what_to_do_next(places: Places, trained, tmp_path, capsys) -> None:
    cli.main(["convert", str(trained[2]), str(tmp_path / "rag")])
    printed = capsys.readouterr().out
    for told in (
        "question_tower/word/embedding",
        "rag.generator.model.shared.weight",
        "num_docs = 2",
        "max_length = 5",
    ):
        assert told in printed
    assert printed.endswith(f'Next: rag-jax answer "YOUR QUESTION" --checkpoint {tmp_path / "rag"} --index INDEX\n')
    cli.main(["convert", str(tmp_path / "rag"), str(tmp_path / "workdir")])
    printed = capsys.readouterr().out
    assert printed.endswith(f'Next: rag-jax answer "YOUR QUESTION" --workdir {tmp_path / "workdir"} --index INDEX\n')
    tensors = len(jax.tree.leaves(places.rag.params))
    assert f"{tmp_path / 'workdir'}: a workdir, {tensors} tensors.\n" in printed


def written(capsys, tmp_path: Path, *arguments: str | Path) -> list[dict]:
    """What `rag-jax answer` writes."""
    output = tmp_path / "answers.jsonl"
    output.unlink(missing_ok=True)  # of another command
    cli.main(["answer", *ASKED, "--output", str(output), *map(str, arguments)])
    assert capsys.readouterr().out == ""
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_answer_takes_a_checkpoint_or_a_workdir_and_an_index(places: Places, tmp_path: Path, capsys) -> None:
    for source in (["--checkpoint", places.folder], ["--workdir", places.workdir]):
        lines = written(capsys, tmp_path, *source, "--index", places.index)
        for line, expected in zip(lines, places.rag.answer(ASKED), strict=True):
            assert line["answer"] == expected.text
            assert line["log_prob"] == pytest.approx(expected.log_prob, abs=1e-6)
            assert [passage["id"] for passage in line["passages"]] == [passage.id for passage in expected.passages]


@pytest.mark.extended
def test_answer_decodes_as_the_checkpoint_says_unless_told(places: Places, tmp_path: Path, capsys) -> None:
    shutil.copytree(places.folder, tmp_path / "rag")
    file = tmp_path / "rag" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_beams": 3, "num_return_sequences": 3}))
    source = ["--checkpoint", tmp_path / "rag", "--index", places.index]
    lines = written(capsys, tmp_path, *source)
    for line, expected in zip(lines, places.rag.answer(ASKED, num_beams=3, n_best=3), strict=True):
        texts = [expected.text, *(each.text for each in expected.alternatives)]
        assert [line["answer"], *(each["answer"] for each in line["alternatives"])] == texts
    lines = written(capsys, tmp_path, *source, "--num-beams", "1", "--n-best", "1")
    assert [line["alternatives"] for line in lines] == [[]] * len(ASKED)
    complaint = refused(capsys, "answer", ASKED[0], *source, "--labels", "red", "red")
    assert "give two or more, all different" in complaint  # not: leave the options of decoding
    complaint = refused(capsys, "answer", ASKED[0], *source, "--num-beams", "1")
    assert complaint == "error: n_best is 3, more than num_beams = 1; ask for 1 to 1\n"


def refused(capsys, *arguments: str | Path) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments)])
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_answer_wants_one_model(places: Places, capsys) -> None:
    both = ["--workdir", places.workdir, "--checkpoint", places.folder]
    for named in ([], both):
        assert (
            refused(capsys, "answer", ASKED[0], *named) == "error: name a --workdir or a --checkpoint, one of the two\n"
        )


@pytest.mark.extended
def test_without_its_index_a_model_is_asked_only_if_that_is_meant(places: Places, capsys) -> None:
    for source in (["--workdir", places.workdir], ["--checkpoint", places.folder]):
        told = refused(capsys, "answer", ASKED[0], *source)
        why = "came without the index that it was trained with; name one, --index DIR, or ask without passages"
        assert told == f"error: {source[1]}: {why}, --closed-book\n"
        cli.main(["answer", ASKED[0], *map(str, source), "--closed-book"])
        assert "log p(y|x) = " in capsys.readouterr().out


@pytest.mark.parametrize("holds", ["a file", "a folder that holds something"])
def test_nothing_is_overwritten(places: Places, tmp_path: Path, capsys, holds: str) -> None:
    target = tmp_path / "target"
    mine = target if holds == "a file" else target / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    for source in (places.folder, places.workdir):
        assert f"{target}: exists already; choose another place" in refused(capsys, "convert", source, target)
    assert sorted(tmp_path.rglob("*")) == sorted({target, mine})
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("empty", "config.json: no such file"),
        ("bart", "model_type is 'bart', needed is rag"),
        ("no/such/place", "no such"),
    ],
)
def test_a_source_that_is_no_model_is_named_and_nothing_is_written(tmp_path, capsys, source: str, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bart").mkdir()
    (tmp_path / "bart" / "config.json").write_text('{"model_type": "bart"}')
    before = sorted(tmp_path.rglob("*"))
    assert what in refused(capsys, "convert", tmp_path / source, tmp_path / "target")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_target_in_a_file_cannot_be_written(places: Places, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for source in (places.folder, places.workdir):
        with pytest.raises(
            InputError, match=r"file/target: cannot be written \(Not a directory\); choose another place"
        ):
            convert(str(source), tmp_path / "file" / "target")
