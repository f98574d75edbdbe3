"""The moderator `moderator_smollm2` as a RAG: it reads the labelled neighbours of a text, and marginalises over them.

    python -m examples.labelled_neighbours examples/moderation/train.jsonl runs/neighbours
    rag-jax train moderator_neighbours --workdir runs/moderator_neighbours

Passages are labelled texts, titled by their label; the tower reads the text alone. More of them are added without
training: rag-jax index, rag.add_passages.
"""

import dataclasses
from pathlib import Path

from rag_jax.config.files import read_config_file

alone = read_config_file(Path(__file__).with_name("moderator_smollm2.py"))
DATA = Path("runs/neighbours")

config = dataclasses.replace(
    alone,
    data=dataclasses.replace(alone.data, passages=DATA / "passages.jsonl", train=DATA / "train.jsonl"),
    retriever=dataclasses.replace(
        alone.retriever,
        engine="fixed",
        num_docs=4,
        vector_norm=20**0.5,  # scores are 20 times the cosine
        passage_template="{text}",
    ),
    generator=dataclasses.replace(
        alone.generator,
        passage_template="Text: {text}\nCategory: {title}",
        question_template="\n\nText: {question}\nCategory:",
        max_passage=64,
        max_input=192,
    ),
    compute=dataclasses.replace(alone.compute, accumulate=2),
)
