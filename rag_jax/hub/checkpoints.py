"""Checkpoints of the Hugging Face ecosystem as values: networks' sizes, parameters, tokenizers, and their use."""

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
    """A tower; `side` says which half of a bi-encoder it was trained as, None that it is no such half."""

    config: TowerConfig
    params: Params
    tokenizer: Tokenizer | None = None
    side: Side | None = None
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # `hub.tokenizers.Stored`
    convention: TowerInputFormat = PLAIN  # what it reads of passages and questions


@dataclass(frozen=True)
class GeneratorCheckpoint:
    """A generator; `generation` is transformers' generation config, as far as it says anything."""

    config: GeneratorConfig
    params: Params
    tokenizer: Tokenizer | None
    generation: Mapping[str, Any]
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How a RAG checkpoint's parts are used together."""

    model: Model
    num_docs: int  # K
    max_input: int  # S, passage and question together
    passage_template: str  # how title and text are joined
    question_template: str  # how the question follows
    question_from_tower: bool = True  # the generator reads the question as decoded from the tower's tokens


@dataclass(frozen=True)
class RagCheckpoint:
    """A question tower and a generator that were trained together. The passage tower is in the index's vectors."""

    tower: TowerCheckpoint
    generator: GeneratorCheckpoint
    reading: Reading


Checkpoint = TowerCheckpoint | GeneratorCheckpoint | RagCheckpoint
