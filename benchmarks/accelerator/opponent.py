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


def load(model: str, weights: Path, docs: int) -> Any:
    """RAG-Token or RAG-Sequence in evaluation mode, on the CPU; its generate takes `docs` from the config only."""
    set_verbosity_error()
    disable_progress_bar()
    tower = DPRQuestionEncoder.from_pretrained(weights / "question_encoder")
    generator = BartForConditionalGeneration.from_pretrained(weights / "generator")
    config = RagConfig(question_encoder=tower.config.to_dict(), generator=generator.config.to_dict(), n_docs=docs)
    return MODELS[model](config=config, question_encoder=tower, generator=generator).eval()
