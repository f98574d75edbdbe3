"""RAG for classification: labelled texts become passages titled by their label, and every text reads its neighbours.

python -m examples.labelled_neighbours examples/moderation/train.jsonl runs/neighbours

Writes passages.jsonl, and train.jsonl, in which each text lists its nearest others: it must not find itself. Then:

rag-jax train moderator_neighbours --workdir runs/moderator_neighbours
"""

import sys
from pathlib import Path

import numpy as np

from rag_jax.config.catalog import find_config
from rag_jax.config.config import Config
from rag_jax.config.files import read_config_file
from rag_jax.data import outputs
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.pipeline.assembly import load_bi_encoder


def nearest_others(vectors: np.ndarray, k: int) -> np.ndarray:
    """The rows of the k nearest others of each text, [N, k], best first."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def main(labelled: str, folder: str, config: Config | None = None) -> np.ndarray:
    config = config or read_config_file(find_config("moderator_neighbours"))
    texts = read_questions(labelled)
    for name in ("passages.jsonl", "train.jsonl"):
        outputs.check_new(Path(folder) / name)
    if len(texts) <= config.retriever.num_docs:
        raise InputError(f"{labelled}: {len(texts)} texts, of which each is to read {config.retriever.num_docs} others")
    encoder = load_bi_encoder(config).required_passage_encoder
    neighbours = nearest_others(encoder([each.question for each in texts]), config.retriever.num_docs)
    passages = ({"id": each.id, "title": each.answers[0], "text": each.question} for each in texts)
    write_jsonl(Path(folder) / "passages.jsonl", passages)
    listed = ([texts[row].id for row in rows] for rows in neighbours)
    rows = (
        {"id": each.id, "text": each.question, "label": each.answers[0], "passage_ids": ids}
        for each, ids in zip(texts, listed, strict=True)
    )
    write_jsonl(Path(folder) / "train.jsonl", rows)
    return neighbours


if __name__ == "__main__":
    main(*sys.argv[1:])
