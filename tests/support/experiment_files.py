"""The small world of `world.py` as experiments take it: configs of all stages, and a second version of the facts."""

import csv
from pathlib import Path
from typing import NamedTuple

import world
from rag_jax.commands.experiment import experiment
from rag_jax.config.config import Config
from rag_jax.data.jsonl import read_jsonl, write_jsonl

STEPS = 8
CONFIG = """import dataclasses
from pathlib import Path

import world

config = world.config(Path({world!r}))
config = dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, {data}),
    retriever=dataclasses.replace(config.retriever, {retriever}),
    generator=dataclasses.replace(config.generator, {generator}),
    {fields}
)
"""


class Files(NamedTuple):
    """The files of the experiments on the small world."""

    config: Path
    reader: Path
    closed_book: Path
    sentences: Path  # a config whose answers are sentences
    other_passages: Path
    other_questions: Path
    workdir: Path


def write(towns: Config, folder: Path) -> Files:
    """Write the files of the experiments on the world of a config."""
    data = towns.data.passages.parent
    next_colour = dict(zip(world.COLOURS, (*world.COLOURS[1:], world.COLOURS[0]), strict=True))

    def written(name: str, **changes: str) -> Path:
        parts = {"data": "", "retriever": "", "generator": "", "fields": f"steps={STEPS},"} | changes
        (folder / name).write_text(CONFIG.format(world=str(data), **parts))
        return folder / name

    passages = [row for _, row in read_jsonl(towns.data.passages)]
    for row in passages:
        colour = row["text"].split()[-2]
        row["text"] = row["text"].replace(f" {colour} ", f" {next_colour[colour]} ")
    write_jsonl(folder / "other.jsonl", passages)
    questions = [row for _, row in read_jsonl(towns.data.evaluation)]
    described = [{**row, "answers": [f"the town {row['positive_ids'][0]} is {row['answers'][0]}"]} for row in questions]
    write_jsonl(folder / "sentences.jsonl", described)
    for row in questions:
        row["answers"] = [next_colour[row["answers"][0]]]
    write_jsonl(folder / "questions.jsonl", questions)
    sentences = f"train=Path({str(folder / 'sentences.jsonl')!r}), evaluation=Path({str(folder / 'sentences.jsonl')!r})"
    return Files(
        config=written("config.py"),
        reader=written("reader.py", retriever='mode="gold", num_docs=1'),
        closed_book=written("closed_book.py", data="passages=None"),
        sentences=written("sentences.py", data=sentences, generator="max_target=20, max_input=48"),
        other_passages=folder / "other.jsonl",
        other_questions=folder / "questions.jsonl",
        workdir=folder / "experiments",
    )


def run(name: str, files: Files, *options: object, workdir: Path | None = None) -> tuple[str, list[dict[str, str]]]:
    """Conduct an experiment; its Markdown, and the rows of its .csv."""
    where = workdir or files.workdir
    experiment([name, "--config", str(files.config), "--workdir", str(where), *map(str, options)])
    text, image = (where / name / f"{name}.md").read_text(), (where / name / f"{name}.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert f"rag-jax experiment {name} --config" in text
    with (where / name / f"{name}.csv").open(newline="") as file:
        return text, list(csv.DictReader(file))
