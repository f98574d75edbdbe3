"""The closed-book baseline of `cities`: the same generator without passages, with as many steps on the same questions.

rag-jax train cities_closed_book --workdir runs/demo/closed_book        # `rag-jax demo` runs it
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
