"""The world's cities without passages: the same generator, trained as long on the same questions.

python train.py configs/cities_closed_book.py --workdir runs/demo/closed_book        (or: make demo)
"""

import dataclasses
from pathlib import Path

from rag_jax.config.files import read_config_file

rag, reader = (read_config_file(Path(__file__).with_name(name)) for name in ("cities.py", "cities_reader.py"))

config = dataclasses.replace(
    reader,
    data=dataclasses.replace(rag.data, passages=None),
    steps=reader.steps + rag.steps,
)
