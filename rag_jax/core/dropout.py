"""Optional dropout keys: None means no dropout, and splits into Nones."""

import jax

from rag_jax.types import DropoutKey


def split(key: DropoutKey, parts: int = 2) -> tuple[DropoutKey, ...]:
    """`parts` independent keys (the key is consumed), or as many Nones."""
    return (None,) * parts if key is None else tuple(jax.random.split(key, parts))
