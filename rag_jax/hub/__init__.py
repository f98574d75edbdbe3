"""The Hugging Face ecosystem's checkpoints, in both directions."""

from rag_jax.hub.checkpoints import Checkpoint, GeneratorCheckpoint, RagCheckpoint, Reading, TowerCheckpoint
from rag_jax.hub.loading import generator_family, load, load_generator, load_tower, special_tokens
from rag_jax.hub.locate import resolve
from rag_jax.hub.saving import check_layout, is_in_parts, save

__all__ = [
    "Checkpoint",
    "GeneratorCheckpoint",
    "RagCheckpoint",
    "Reading",
    "TowerCheckpoint",
    "check_layout",
    "generator_family",
    "is_in_parts",
    "load",
    "load_generator",
    "load_tower",
    "resolve",
    "save",
    "special_tokens",
]
