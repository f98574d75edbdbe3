"""RAG-Token on questions about GeoNames cities: question tower and generator, end to end.

    rag-jax train cities --workdir runs/demo        # after cities_reader; `rag-jax demo` runs all three

The corpus has one passage per GeoNames city (34,003). Measured on two idle CPU cores, after 301 s of training including
cities_reader: exact match 0.889 on 1,000 questions about cities held out from training, 0.039 without passages.
"""

import dataclasses
from pathlib import Path

from rag_jax.config.files import read_config_file

reader = read_config_file(Path(__file__).with_name("cities_reader.py"))

config = dataclasses.replace(
    reader,
    data=dataclasses.replace(reader.data, evaluation=Path("runs/demo/data/test.jsonl"), index=None),
    retriever=dataclasses.replace(reader.retriever, mode="trained", num_docs=2),
    optimizer=dataclasses.replace(
        reader.optimizer, learning_rate=0.008, adam_learning_rate=1e-3, tower_learning_rate=5e-5, warmup=20
    ),
    start_from=Path("runs/demo/reader"),
    closed_book=Path("runs/demo/closed_book"),
    steps=120,
    log_every=20,
)
