"""The opponent: transformers' Llama. A process that answers requests: tokens of prompts in, tokens of answers out.

Greedy decoding is its own `generate`. It has no RAG-Token for a decoder-only model: that is `smollm2_tree`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.cases import GENERATOR
from benchmarks.conversation import serve, threads
from benchmarks.smollm2_cases import GREEDY, Case
from benchmarks.smollm2_tree import search


def main(folder: Path, dtype: str) -> None:
    """Load the model, then answer what is asked."""
    model = load(folder).eval().to(getattr(torch, dtype))

    def answer(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        case = Case(**request["case"])
        prompts, mask = left_padded(inputs["prompts"], inputs["prompt_lengths"])
        end = int(inputs["end"])
        with torch.inference_mode():
            if case.decoder == GREEDY:
                return {"tokens": generated(model, prompts, mask, case.target, end)}
            log_prior = torch.from_numpy(inputs["log_prior"])
            tokens, log_probs = search(model, prompts, mask, log_prior, case.beams, case.target, end)
        return {"tokens": tokens.tolist(), "log_probs": log_probs.tolist()}

    serve(answer)


def load(folder: Path) -> Any:
    """The model in float32."""
    torch.set_num_threads(threads())
    set_verbosity_error()
    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder / GENERATOR, dtype=torch.float32)


def left_padded(prompts: np.ndarray, lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts that end in the same column, and True where they have tokens."""
    aligned = np.stack([np.roll(row, len(row) - length) for row, length in zip(prompts, lengths, strict=True)])
    mask = np.arange(prompts.shape[1])[None, :] >= prompts.shape[1] - lengths[:, None]
    return torch.from_numpy(aligned), torch.from_numpy(mask)


def generated(model: Any, prompts: torch.Tensor, mask: torch.Tensor, target: int, end: int) -> list[list[int]]:
    """The greedy continuations, of which none ends before its last token."""
    found = model.generate(
        prompts,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=target,
        min_new_tokens=target - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return found[:, prompts.shape[1] :].tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
