"""Loaded checkpoints of the Hugging Face ecosystem: configs, parameters, tokenizers, and settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenizers import Tokenizer

from rag_jax.core.variants import Model
from rag_jax.data.tower_inputs import PLAIN, TowerInputFormat
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.types import Params

Side = Literal["question", "passage"]


@dataclass(frozen=True)
class TowerCheckpoint:
    """A tower; `side` is its half of a bi-encoder, None if it encodes both."""

    config: TowerConfig
    params: Params
    tokenizer: Tokenizer | None = None
    side: Side | None = None
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # `hub.tokenizers.Stored`
    input_format: TowerInputFormat = PLAIN  # of passages and questions


@dataclass(frozen=True)
class GeneratorCheckpoint:
    """A generator; `generation` holds the known settings of transformers' generation config."""

    config: GeneratorConfig
    params: Params
    tokenizer: Tokenizer | None
    generation: Mapping[str, Any]
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """The settings of a RAG checkpoint that combine its parts."""

    model: Model
    num_docs: int  # K
    max_input: int  # S, passage and question together
    passage_template: str  # how title and text are joined
    question_template: str  # how the question follows
    question_from_tower: bool = True  # the generator reads the question as decoded from the tower's tokens


@dataclass(frozen=True)
class RagCheckpoint:
    """A question tower and a generator that were trained together, without the passage tower."""

    tower: TowerCheckpoint
    generator: GeneratorCheckpoint
    reading: Reading


Checkpoint = TowerCheckpoint | GeneratorCheckpoint | RagCheckpoint
