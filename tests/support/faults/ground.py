"""What commands run on: corpora, questions, networks, a store, a trained model. Small, and written once."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from faults.forks import finished, fork

QUESTION = "what colour is Norburg"
PARTS = ("files", "store", "run")  # each holds those before it


def lay(folder: Path, part: str) -> Path:
    """The ground up to this part, below `folder`."""
    previous: Path | None = None
    for name in PARTS[: PARTS.index(part) + 1]:
        place = folder / name
        if not place.exists():
            staged = folder / f"{name}.new"
            shutil.rmtree(staged, ignore_errors=True)
            if previous is None:
                staged.mkdir(parents=True)
            else:
                shutil.copytree(previous, staged)
            _forked(MAKE[name], staged)
            staged.rename(place)
        previous = place
    assert previous is not None
    return previous


def rows(path: Path, *found: object) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def _forked(make: Callable[[], None], folder: Path) -> None:
    def act() -> None:
        os.chdir(folder)
        make()

    ended = finished(fork(act), 600)
    assert ended.code == 0, ended


def _files() -> None:
    import bi_encoders
    import chat_models
    import world

    here = Path()
    config = world.write(Path("world"))
    for name in ("passages", "train", "test"):
        (here / "world" / f"{name}.jsonl").rename(f"{name}.jsonl")
    (here / "world" / "tower").rename("tower")
    (here / "world").rmdir()
    config = dataclasses.replace(world.config(here), steps=2)
    chat_models.write(here / "generator")
    chat_models.write_instructions(here / "instructions.jsonl")
    _config_file("config", config)
    _config_file("contrastive", dataclasses.replace(bi_encoders.config(config, here), steps=2))
    _config_file("instruction", _instruction())
    rows(here / "questions.jsonl", *({"id": str(n), "question": f"what colour is {t}"} for n, t in enumerate(TOWNS)))
    rows(here / "predictions.jsonl", *({"id": f"q-{town}", "answer": "red"} for town in _asked()))
    prompts = [{"id": str(n), "prompt": f"paint {t}", "type": "towns", "label": LABELS[n % 2]} for n, t in TOWN_LIST]
    rows(here / "prompts.jsonl", *prompts)
    completions = [{"prompt_id": row["id"], "completion": "I cannot help.", "model": "kind"} for row in prompts]
    rows(here / "completions.jsonl", *completions)
    rows(here / "texts.jsonl", *({"id": str(n), "text": f"is {t}", "label": "red"} for n, t in TOWN_LIST))
    moderated = [{"name": name, "threshold": 0.3, "policy": "flag"} for name in ("blue", "green")]
    (here / "categories.json").write_text(json.dumps({"moderated": moderated, "acceptable": "red"}))


def _asked() -> list[str]:
    read = (json.loads(line) for line in Path("test.jsonl").read_text().splitlines())
    return [row["id"].removeprefix("q-") for row in read]


def _instruction():
    from rag_jax.config.config import Lora
    from rag_jax.config.instruction import Data, Generator, InstructionConfig

    data = Data(train=((Path("instructions.jsonl"), 1.0),), evaluation=Path("instructions.jsonl"))
    generator = Generator("generator", max_length=96, max_input=64, max_passage=24, lora=Lora(rank=2))
    return InstructionConfig(data, generator, steps=2, batch_size=4, length_groups=2)


def _config_file(name: str, config: object) -> None:
    """A Python file beside the JSON that holds the config."""
    from rag_jax.config.files import save_config

    save_config(config, Path(f"{name}.json"))  # type: ignore[arg-type]
    kind = type(config)
    lines = (
        "from pathlib import Path",
        f"from {kind.__module__} import {kind.__name__}",
        "from rag_jax.config.files import load_config_of",
        f"config = load_config_of({kind.__name__}, Path(__file__).with_suffix('.json'))",
    )
    Path(f"{name}.py").write_text("\n".join(lines) + "\n")


def _store() -> None:
    command("index", "passages.jsonl", "--out", "store", "--bm25", *BUILD)
    for output in ("evaluation", "other"):
        command("evaluate", "--questions", "test.jsonl", "--output", output, "--predictions", "predictions.jsonl")


def _run() -> None:
    command("train", "config.py", "--workdir", "run")


def command(*arguments: str) -> None:
    """Run a command in this process."""
    from rag_jax.cli import main

    main(arguments)


TOWNS = ("Norburg", "Suddorf", "Westal", "Goldau")
TOWN_LIST = tuple(enumerate(TOWNS))
LABELS = ("safe", "unsafe")
BUILD = ("--tower", "tower", "--max-length", "16", "--template", "{title}", "--norm", "4")
MAKE = {"files": _files, "store": _store, "run": _run}
