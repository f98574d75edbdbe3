"""What a run's evaluation needs is found before it trains, and what has been trained can always be evaluated."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from rag_jax.config.config import Config
from rag_jax.config.files import load_config, save_config
from rag_jax.config.generation import GenerationConfig
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import fingerprint, read_questions
from rag_jax.errors import InputError
from rag_jax.evaluation import evaluate
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.training.run import train_and_evaluate
from world import question

LONG = {"id": "long", "question": "what colour is " + "Norburg " * 20, "answers": ["red"]}


def changed(config: Config, **data) -> Config:
    """The config with other data, or anything else of its own."""
    own = {name: data.pop(name) for name in list(data) if not hasattr(config.data, name)}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data), **own)


@pytest.fixture
def finished(trained, towns: Config, tmp_path: Path) -> tuple[Config, Path]:
    """A finished run whose training data are gone."""
    workdir = tmp_path / "run"
    shutil.copytree(trained[2], workdir)
    config = changed(towns, train=Path("gone.jsonl"), passages=Path("gone.jsonl"))
    save_config(config, workdir / "config.json")
    return config, workdir


def test_a_finished_training_is_evaluated_otherwise_without_what_it_was_trained_on(finished, tmp_path: Path) -> None:
    config, workdir = finished
    asked = [question("Norburg", "red"), question("Sudhof", "blue"), question("Neuort", "green")]
    write_jsonl(tmp_path / "other.jsonl", asked)
    before = sorted((workdir / "checkpoints").iterdir())
    decoding = GenerationConfig(num_beams=2, n_best=2)
    other = changed(config, evaluation=tmp_path / "other.jsonl", decoding=decoding, eval_batch=2)
    rag, results = train_and_evaluate(other, workdir)
    answers = rag.answer([each["question"] for each in asked], num_beams=2)
    right = [exact_match(answer.text, each["answers"]) for answer, each in zip(answers, asked, strict=True)]
    assert results["exact_match"] == sum(right) / 3
    assert results["questions"] == 3
    assert results["decoder"] == {"num_beams": 2, "n_best": 2}
    assert results["evaluated_on"] == fingerprint(read_questions(tmp_path / "other.jsonl"))
    assert json.loads((workdir / "results.json").read_text()) == results
    assert sorted((workdir / "checkpoints").iterdir()) == before
    assert load_config(workdir / "config.json") == other


@pytest.mark.extended
def test_a_long_question_of_the_evaluation_is_named_before_training_or_cut(towns: Config, finished, tmp_path) -> None:
    write_jsonl(tmp_path / "long.jsonl", [question("Sudhof", "blue"), LONG])
    told = r"^question 'long' \(what colour is Norburg Norburg .*\) has \d+ tokens, more than max_question = 16; "
    with pytest.raises(InputError, match=told) as said:
        train_and_evaluate(changed(towns, evaluation=tmp_path / "long.jsonl"), tmp_path / "new")
    assert "\n" not in str(said.value)
    assert not (tmp_path / "new" / "config.json").exists()
    config, workdir = finished
    with pytest.raises(InputError, match=told):
        train_and_evaluate(changed(config, evaluation=tmp_path / "long.jsonl"), workdir)
    _, results = train_and_evaluate(changed(config, evaluation=tmp_path / "long.jsonl", long_questions="cut"), workdir)
    assert results["questions_cut"] == 1


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"decoding": GenerationConfig(forced_bos="<fr>")}, "forced_bos is '<fr>', no token of the generator"),
        ({"decoding": GenerationConfig(bad_words=(" ",))}, "one is empty"),
        ({"start": "<de>"}, "generator.start is '<de>', no token of the generator"),
        ({"num_docs": 257}, "the index has 256 passages"),
    ],
)
def test_what_answers_will_need_is_looked_for_before_training(towns: Config, tmp_path, other: dict, told: str) -> None:
    generator = dataclasses.replace(towns.generator, start=other.get("start", "<s>"))
    retriever = dataclasses.replace(towns.retriever, num_docs=other.get("num_docs", 2))
    config = dataclasses.replace(towns, generator=generator, retriever=retriever)
    config = dataclasses.replace(config, decoding=other.get("decoding", config.decoding))
    with pytest.raises(InputError, match=told):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_more_passages_than_an_index_of_another_place_has_is_found_before_training(towns: Config, trained, tmp_path):
    retriever = dataclasses.replace(towns.retriever, num_docs=300)
    config = dataclasses.replace(changed(towns, passages=None, index=trained[2] / "index"), retriever=retriever)
    with pytest.raises(InputError, match="cannot read K = 300 of 256 passages"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_baseline_is_of_the_same_questions_or_refused(finished, tmp_path: Path) -> None:
    config, workdir = finished
    config = dataclasses.replace(config, closed_book=tmp_path)
    asked = read_questions(config.data.evaluation)
    there = {"exact_match": 0.25, "index": evaluate.CLOSED_BOOK, "evaluated_on": fingerprint(asked)}

    def run(**told) -> dict:
        (tmp_path / "results.json").write_text(json.dumps(there | told))
        return train_and_evaluate(config, workdir)[1]

    assert run()["closed_book_exact_match"] == 0.25
    with pytest.raises(InputError, match=r"results\.json: evaluated on other questions; evaluate it on these"):
        run(evaluated_on=fingerprint(asked[1:]))
    with pytest.raises(InputError, match=r"results\.json: of a run that reads passages; name a closed-book run"):
        run(index="device")
    with pytest.raises(InputError, match=r"results\.json: exact_match is None; give a number"):
        run(exact_match=None)


@pytest.mark.extended
def test_the_recall_before_training_is_that_of_the_run_that_it_starts_from(
    towns: Config, trained, tmp_path: Path, capsys
) -> None:
    """The tower of the checkpoint finds less than the trained one that this run starts from."""
    _, trained_results, source = trained
    workdir = tmp_path / "first"
    shutil.copytree(source, workdir)
    still = dataclasses.replace(towns.optimizer, tower_learning_rate=0.0)
    begun = changed(towns, start_from=workdir, steps=1, optimizer=still)
    _, results = train_and_evaluate(begun, tmp_path / "run")
    assert results["recall@1_before"] == pytest.approx(trained_results["recall@1"])
    assert results["recall@1_before"] > trained_results["recall@1_before"]
    shutil.rmtree(workdir / "checkpoints")
    capsys.readouterr()
    _, results = train_and_evaluate(begun, tmp_path / "run")
    assert "recall@1" in results
    assert "recall@1_before" not in results
    assert "first: not as it was when this run began; results lack the recall before" in capsys.readouterr().err
