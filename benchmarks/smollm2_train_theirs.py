"""The opponent: a training step of transformers' Llama in torch, on RAG-Token's loss, as a process of its own.

The prompts of all passages with their targets are one batch, padded to the longest. Only the states before a target are
projected onto the vocabulary.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.conversation import serve
from benchmarks.smollm2_cases import CLIP, DECAY, RATE
from benchmarks.smollm2_theirs import load


def main(folder: Path, dtype: str) -> None:
    """Load the weights, then take the steps that are asked for; bfloat16 is torch's autocast. There is no dropout."""
    model = load(folder).train()
    optimizer = torch.optim.AdamW(groups(model), lr=RATE, fused=True)

    def take(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list[float]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            log_probs = log_likelihood(model, inputs)
        loss = -log_probs.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return {"log_probs": [-loss.item()]}

    serve(take)


def log_likelihood(model: Any, inputs: dict[str, np.ndarray]) -> torch.Tensor:
    """`sum_t log sum_z p(z|x) p(y_t|x, z, y_<t)` `[B]`."""
    log_prior = torch.from_numpy(inputs["log_prior"])
    batch, k = log_prior.shape
    labels = torch.from_numpy(inputs["labels"])
    is_label = torch.arange(labels.shape[1])[None, :] < torch.from_numpy(inputs["label_lengths"])[:, None]
    ids, mask, before = joined(inputs, k)
    states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    states = states.gather(1, before[:, :, None].expand(-1, -1, states.shape[2]))
    logits = model.lm_head(states).float().view(batch, k, *before.shape[1:], -1)
    each = logits.gather(3, labels[:, None, :, None].expand(-1, k, -1, -1))[..., 0] - logits.logsumexp(dim=3)
    return torch.where(is_label, torch.logsumexp(log_prior[:, :, None] + each, dim=1), 0.0).sum(dim=1)


def joined(inputs: dict[str, np.ndarray], k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts with their targets, padded on the right; where there are tokens; and the position before each target."""
    lengths, labels = inputs["prompt_lengths"], inputs["labels"].repeat(k, axis=0)
    label_lengths = inputs["label_lengths"].repeat(k)
    rows = [
        np.concatenate([prompt[:length], label[: count - 1]])  # nothing follows the last target
        for prompt, length, label, count in zip(inputs["prompts"], lengths, labels, label_lengths, strict=True)
    ]
    size = max(map(len, rows))
    ids = np.stack([np.pad(row, (0, size - len(row))) for row in rows])
    mask = np.arange(size)[None, :] < np.asarray([len(row) for row in rows])[:, None]
    before = np.minimum(lengths[:, None] - 1 + np.arange(labels.shape[1])[None, :], size - 1)
    return torch.from_numpy(ids), torch.from_numpy(mask).long(), torch.from_numpy(before)


def groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Matrices decay; the scales of norms do not."""
    params = list(model.parameters())
    return [
        {"params": [each for each in params if each.ndim > 1], "weight_decay": DECAY},
        {"params": [each for each in params if each.ndim == 1], "weight_decay": 0.0},
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
