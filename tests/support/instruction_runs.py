"""Short instruction tuning runs of a small random chat model."""

from pathlib import Path

import chat_models
from rag_jax.config.config import AdamW, Lora
from rag_jax.config.instruction import Data, Generator, InstructionConfig, Retriever
from rag_jax.data.jsonl import write_jsonl

NAMES = ("Ada", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal")
QUESTIONS = [
    {"id": f"q{n}", "question": f"what is {name}", "answers": [("red", "blue")[n % 2], "x"]}
    for n, name in enumerate(NAMES)
]
PASSAGES = [
    {"id": str(n), "title": name, "text": f"{name} is {('red', 'blue')[n % 2]}"} for n, name in enumerate(NAMES)
]


def config(folder: Path, **changes) -> InstructionConfig:
    """A mixture of instructions and questions, closed book."""
    model = folder / "model"
    if not model.exists():
        chat_models.write(model)
        chat_models.write_instructions(folder / "train.jsonl")
        chat_models.write_instructions(folder / "dev.jsonl", 5, start=12)
        write_jsonl(folder / "questions.jsonl", QUESTIONS)
        write_jsonl(folder / "passages.jsonl", PASSAGES)
    values = {
        "data": Data(
            train=((folder / "train.jsonl", 3.0), (folder / "questions.jsonl", 1.0)), evaluation=folder / "dev.jsonl"
        ),
        "generator": Generator(str(model), max_length=96, max_input=64, max_passage=24, lora=Lora(rank=2)),
        "retriever": Retriever(num_docs=1, max_question=48, unanswerable="do not say"),
        "optimizer": AdamW(learning_rate=2e-2, warmup=2),
        "steps": 6,
        "batch_size": 4,
        "length_groups": 2,
        "log_every": 2,
        "save_every": 3,
    }
    return InstructionConfig(**{**values, **changes})
