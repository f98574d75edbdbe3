"""A contrastive run in the small world of `world.py`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.config.contrastive import AdamW, BiEncoder, Contrast, ContrastiveConfig, Data
from rag_jax.contrastive.run import train_and_evaluate
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.types import Params


def config(towns: Config, folder: Path) -> ContrastiveConfig:
    """The config of a short run on the files of a RAG run's config; its hard negatives are written into a folder."""
    assert towns.data.passages is not None
    assert towns.data.train is not None
    return ContrastiveConfig(
        data=Data(
            passages=towns.data.passages,
            train=towns.data.train,
            negatives=write_negatives(towns.data.passages, towns.data.train, folder),
            evaluation=towns.data.evaluation,
        ),
        retriever=BiEncoder(
            tower=towns.retriever.tower, max_question=16, max_passage=16, passage_template="{title}. {text}"
        ),
        contrastive=Contrast(temperature=0.1, length_groups=2),
        optimizer=AdamW(learning_rate=3e-3, warmup=2),
        steps=6,
        batch_size=16,
        log_every=2,
        save_every=3,
    )


def write_negatives(passages: Path, questions: Path, folder: Path) -> Path:
    """The next two towns of the corpus as the hard negatives of each question."""
    towns = [row["id"] for _, row in read_jsonl(passages)]
    following = {town: [towns[(i + 1) % len(towns)], towns[(i + 2) % len(towns)]] for i, town in enumerate(towns)}
    asked = (row for _, row in read_jsonl(questions))
    rows = ({"id": row["id"], "negative_ids": following[row["positive_ids"][0]]} for row in asked)
    write_jsonl(folder / "negatives.jsonl", rows)
    return folder / "negatives.jsonl"


def finished(config: ContrastiveConfig, workdir: Path) -> tuple[Path, dict]:
    """A run with its own towers for questions and passages, and its results."""
    found = train_and_evaluate(dataclasses.replace(config, steps=40), workdir)
    assert found is not None
    return workdir, found.results


def losses(workdir: Path) -> list[float]:
    """The losses that a run has logged."""
    return [row["loss"] for _, row in read_jsonl(workdir / "metrics.jsonl")]


def params(folder: Path) -> Params:
    """The parameters of a tower on disk."""
    return hub.load_tower(folder).params


def same(one: Params, other: Params) -> bool:
    """Whether two towers have the same parameters."""
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)))
