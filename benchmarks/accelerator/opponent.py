"""transformers' RAG with the weights that both sides start from."""

from pathlib import Path
from typing import Any

from transformers import (
    BartForConditionalGeneration,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

MODELS = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}


def load(model: str, weights: Path) -> Any:
    """RAG-Token or RAG-Sequence in evaluation mode, on the CPU."""
    set_verbosity_error()
    disable_progress_bar()
    tower = DPRQuestionEncoder.from_pretrained(weights / "question_encoder")
    generator = BartForConditionalGeneration.from_pretrained(weights / "generator")
    config = RagConfig(question_encoder=tower.config.to_dict(), generator=generator.config.to_dict())
    return MODELS[model](config=config, question_encoder=tower, generator=generator).eval()
