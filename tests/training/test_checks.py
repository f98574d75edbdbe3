"""What is refused before anything is compiled or written, in one line each."""

import dataclasses
from pathlib import Path

import jax
import pytest

from rag_jax.config import keys
from rag_jax.config.config import (
    Compute,
    Config,
    Data,
    Distillation,
    GenerationConfig,
    Generator,
    Mesh,
    Optimizer,
    Retriever,
    Watch,
)
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import save_config
from rag_jax.errors import InputError
from rag_jax.index import manifest
from rag_jax.training import checks

USUAL = Config(Data(), Retriever("tower"))


def changed(**fields) -> Config:
    return dataclasses.replace(USUAL, **fields)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (changed(batch_size=0), r"^batch_size is 0; give 1 or more$"),
        (changed(steps=0), r"^steps is 0; give 1 or more$"),
        (changed(max_bad_steps=-1), r"^max_bad_steps is -1; give 1 or more$"),
        (changed(eval_every=0), r"^eval_every is 0; give 1 or more$"),
        (changed(retriever=Retriever("tower", num_docs=0)), r"^retriever\.num_docs is 0; give 1 or more$"),
        (
            changed(retriever=Retriever("tower", vector_norm=-1.0)),
            r"^retriever\.vector_norm is -1\.0; give more than 0$",
        ),
        (changed(optimizer=Optimizer(learning_rate=-1e-4)), r"^optimizer\.learning_rate is -0\.0001; give 0 or more$"),
        (
            changed(optimizer=Optimizer(learning_rate=float("nan"))),
            r"^optimizer\.learning_rate is nan; give 0 or more$",
        ),
        (
            changed(optimizer=Optimizer(learning_rate=float("inf"))),
            r"^optimizer\.learning_rate is inf; give 0 or more$",
        ),
        (
            changed(retriever=Retriever("tower", vector_norm=float("inf"))),
            r"^retriever\.vector_norm is inf; give more than 0$",
        ),
        (changed(generator=Generator(init_std=-1.0)), r"^generator\.init_std is -1\.0; give 0 or more$"),
        (changed(generator=Generator(vocabulary=-1)), r"^generator\.vocabulary is -1; give 1 or more$"),
        (changed(seed=-1), r"^seed is -1; give 0 to 2\*\*32 - 1$"),
        (
            changed(decoding=GenerationConfig(length_penalty=float("nan"))),
            r"^decoding: length_penalty is nan, max_length ",
        ),
        (
            changed(decoding=GenerationConfig(length_penalty=float("inf"))),
            r"^decoding: length_penalty is inf, max_length ",
        ),
        (
            changed(decoding=GenerationConfig(do_sample=True, temperature=float("inf"))),
            r"^decoding: temperature is inf; give a finite number, 1e-06 or more",
        ),
        (
            changed(decoding=GenerationConfig(do_sample=True, top_p=float("nan"))),
            r"^decoding: top_p is nan; give a probability",
        ),
        (
            changed(decoding=GenerationConfig(do_sample=True, min_p=float("nan"))),
            r"^decoding: min_p is nan; give a probability",
        ),
        (changed(buckets=((0, 0),)), r"^buckets are \(\(0, 0\),\); give pairs of 1 token or more$"),
        (
            changed(retriever=Retriever("tower", max_question=300), buckets=((32, 36),)),
            r"^retriever\.max_question is 300, generator\.max_input 300; give a question fewer tokens",
        ),
        (changed(optimizer=Optimizer(warmup=-5)), r"^optimizer\.warmup is -5; give 0 or more$"),
        (changed(optimizer=Optimizer(clip=0.0)), r"^optimizer\.clip is 0\.0; give more than 0; inf clips nothing$"),
        (changed(generator=Generator(dropout=1.5)), r"^generator\.dropout is 1\.5; give 0 or more, below 1$"),
        (
            changed(retriever=Retriever("tower", mode="gold", engine="fixed")),
            r"^retriever\.mode is gold, but the engine fixed reads the passage_ids of the question file; give another",
        ),
        (changed(generator=Generator(heads=3)), r"^generator\.width is 128, generator\.heads 3; give a width that"),
        (
            changed(generator=Generator(architecture="llama", width=60, heads=4)),
            r"^generator\.width is 60, generator\.heads 4; a llama rotates its heads in halves: give heads of an even",
        ),
        (changed(decoding=GenerationConfig(method="fast")), r"^decoding: method fast is a search of RAG-Sequence; "),
        (changed(buckets=()), r"^buckets are none; "),
        (changed(retriever=Retriever("tower", staleness=1)), r"^retriever\.staleness is 1 with the engine device; "),
        (
            changed(
                data=Data(index=Path("index")),
                retriever=Retriever("tower", engine="hybrid", staleness=1),
                mesh=Mesh(data=2),
            ),
            r"^retriever\.staleness is 1, and the engine hybrid searches the mesh beside the training step; give 0, or",
        ),
        (changed(generator=Generator(lengths=(200, 100))), r"^generator\.lengths are \(200, 100\), max_input 300; "),
        (changed(generator=Generator(lengths=(300,))), r"^generator\.lengths are \(300,\), max_input 300; "),
        (changed(compute=Compute(prefill_chunk=0)), r"^compute\.prefill_chunk is 0; give 1 or more$"),
        (
            changed(compute=Compute(prefill_chunk=8), generator=Generator(lengths=(200,))),
            r"^compute\.prefill_chunk is 8, generator\.lengths \(200,\): packed prompts are read at once; leave one",
        ),
        (changed(generator=Generator(max_input=64)), r"^buckets: 68 question tokens leave no room in generator\.max_"),
    ],
)
def test_numbers_that_make_no_run(wrong: Config, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        checks.check_numbers(wrong)
    assert "\n" not in str(caught.value)


def test_a_workdir_of_another_config_is_refused_key_by_key(tmp_path: Path) -> None:
    save_config(changed(seed=1), path := tmp_path / "config.json")
    other = changed(seed=2, generator=Generator(width=64), save_every=7)
    with pytest.raises(InputError) as caught:
        checks.check_resumable(other, path)
    said = str(caught.value)
    assert "generator.width was 128, is 64" in said
    assert "seed was 1, is 2" in said
    assert "save_every" not in said
    assert "\n" not in said


def test_every_key_with_bounds_exists_and_its_default_is_within() -> None:
    assert {name for names, _, _ in checks.BOUNDS for name in names} <= set(keys.names())
    checks.check_numbers(USUAL)


@pytest.mark.parametrize("name", [*checks.MAY_CHANGE, *checks.RELOCATABLE])
def test_every_key_that_may_change_exists(name: str) -> None:
    known = [*keys.names(), *keys.names(ContrastiveConfig)]
    assert any(f"{each}.".startswith(f"{name}.") for each in known)


def test_what_costs_only_time_may_change_and_is_told(tmp_path: Path) -> None:
    save_config(USUAL, path := tmp_path / "config.json")
    assert checks.check_resumable(USUAL, path) == []
    other = changed(mesh=Mesh(2), eval_every=5, log_every=7, watch=Watch(tensorboard=True), steps=1_500)
    assert checks.check_resumable(other, path) == [
        "mesh.data: 1 before, 2 now",
        "watch.tensorboard: False before, True now",
        "steps: 1000 before, 1500 now; "
        "the learning rate decays towards the new end from here on, as it did towards the old one before",
        "log_every: 10 before, 7 now",
        "eval_every: None before, 5 now",
    ]


def test_several_processes_need_what_one_has_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, a process builds it."""
    config = changed(data=Data(tmp_path / "passages.jsonl"))
    checks.check_together(config, tmp_path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"index: no knowledge store there, and several processes do not build one; "):
        checks.check_together(config, tmp_path)
    words = r"tokenizer\.json: no vocabulary there, and several processes do not learn one; make it in one process"
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / manifest.FILE).touch()
    with pytest.raises(InputError, match=words):
        checks.check_together(config, tmp_path)
    for given in ({"checkpoint": "bart"}, {"tokenizer": Path("words.json")}):
        checks.check_together(dataclasses.replace(config, generator=Generator(**given)), tmp_path)
    elsewhere = dataclasses.replace(config, data=Data(index=tmp_path / "index"))
    with pytest.raises(InputError, match=words):
        checks.check_together(elsewhere, tmp_path / "run")
    with pytest.raises(InputError, match=words):
        checks.check_together(USUAL, tmp_path / "run")  # a closed book needs no index
    (tmp_path / "tokenizer.json").touch()
    checks.check_together(config, tmp_path)
    checks.check_together(dataclasses.replace(elsewhere, start_from=tmp_path), tmp_path / "run")


def test_an_index_is_not_built_among_other_things_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first" / "checkpoints").mkdir(parents=True)
    wrong = changed(data=Data(tmp_path / "passages.jsonl", index=tmp_path / "runs"))
    with pytest.raises(
        InputError, match=r"runs: not a knowledge store, and holds first; name a new folder or an empty one$"
    ):
        checks.check(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    checks.check(changed(data=Data(tmp_path / "passages.jsonl", index=tmp_path / "index")), tmp_path / "run")


@pytest.mark.parametrize("checkpoint", [None, "bart"])
def test_a_run_saved_with_the_dropout_of_before_goes_on_by_default(checkpoint: str | None, tmp_path: Path) -> None:
    """Then the default was 0.1, from scratch as now, and nothing to a checkpoint, whose own rate was taken."""
    now = changed(generator=Generator(checkpoint=checkpoint))
    save_config(changed(generator=Generator(checkpoint=checkpoint, dropout=0.1)), path := tmp_path / "config.json")
    assert checks.check_resumable(now, path) == []
    save_config(changed(generator=Generator(checkpoint=checkpoint, dropout=0.2)), path)
    with pytest.raises(InputError, match=r"generator\.dropout was 0\.2, is None"):
        checks.check_resumable(now, path)


def test_fewer_steps_are_another_config(tmp_path: Path) -> None:
    save_config(USUAL, path := tmp_path / "config.json")
    with pytest.raises(InputError, match=r"\(steps was 1000, is 900\); set it back, or choose another --workdir"):
        checks.check_resumable(changed(steps=900), path)


def test_nothing_is_made_where_a_config_is_checked(tmp_path: Path) -> None:
    assert checks.check(USUAL, tmp_path / "run") == []
    assert not (tmp_path / "run").exists()


def test_longer_questions_may_come_where_none_is_cut(tmp_path: Path) -> None:
    longer = changed(retriever=Retriever("tower", max_question=200))
    save_config(USUAL, path := tmp_path / "config.json")
    assert checks.check_resumable(longer, path) == ["retriever.max_question: 128 before, 200 now"]
    cut = dataclasses.replace(longer, data=Data(long_questions="cut"))
    with pytest.raises(InputError, match=r"retriever\.max_question was 128, is 200"):
        checks.check_resumable(cut, path)
    save_config(dataclasses.replace(USUAL, data=Data(long_questions="cut")), path)
    with pytest.raises(InputError, match=r"retriever\.max_question was 128, is 200"):
        checks.check_resumable(longer, path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"retriever": {"prior_docs": 4}}, r"retriever\.num_docs 5; give as many or more"),
        (
            {"retriever": {"prior_docs": 9, "engine": "faiss"}},
            r"but the engine faiss returns num_docs passages; give None, or the engine device",
        ),
        (
            {"retriever": {"prior_docs": 9, "distillation": Distillation("pdist")}},
            r"but a distillation compares the passages that are read; give one of the two",
        ),
        (
            {"retriever": {"prior_docs": 9, "mode": "frozen"}},
            r"but the prior is not trained; give None, or train the retriever by model token",
        ),
        (
            {"retriever": {"prior_docs": 9}, "model": "fid"},
            r"but the prior is not trained; give None, or train the retriever by model token",
        ),
        (
            {"retriever": {"prior_docs": 9}, "generator": Generator(passages_per_prompt=2)},
            r"but generator\.passages_per_prompt is 2; give 1",
        ),
    ],
)
def test_a_prior_over_more_passages_that_nothing_learns_from(wrong: dict, told: str) -> None:
    data = Data(index=Path("index"))
    config = changed(**{"data": data, **wrong, "retriever": Retriever("tower", **wrong["retriever"])})
    with pytest.raises(InputError, match=rf"^retriever\.prior_docs is \d, {told}$"):
        checks.check_numbers(config)
    checks.check_numbers(changed(data=data, retriever=Retriever("tower", prior_docs=9)))
