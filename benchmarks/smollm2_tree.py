"""RAG-Token with transformers' Llama: beam search over the mixture of the passages, as fast as its forward pass allows.

The beams of a passage are queries of one row, so that they share the prompt's keys and values. Each step appends a
token for every beam, and a mask says which of them are its ancestors: nothing is copied or reordered when the search
drops one beam for another.
"""

import inspect
from typing import Any

import torch
from transformers import DynamicCache


def search(
    model: Any,
    prompts: torch.Tensor,
    mask: torch.Tensor,
    log_prior: torch.Tensor,
    beams: int,
    target: int,
    end: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best answer `[B, T]`, T > 1, of each question and its log p(y|x). None ends before its last token.

    Args:
        prompts: `[B * K, S]`, padded on the left.
        mask: True where they have tokens.
        log_prior: log p(z|x) `[B, K]`.
    """
    batch, k = log_prior.shape
    cache, lengths = DynamicCache(config=model.config), mask.sum(dim=1)
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    logits = forward(model, prompts, mask.long(), positions, cache)[:, -1:]
    scores, token, parent = _best(_mixture(logits, log_prior), torch.zeros(batch, 1), beams, end)
    answers = token[:, :, None]
    visible = torch.zeros(batch * k, beams, 0, dtype=torch.bool)
    own = torch.eye(beams, dtype=torch.bool).expand(batch * k, -1, -1)
    read = mask[:, None, :].expand(-1, beams, -1)
    for step in range(1, target):
        lineage = parent.repeat_interleave(k, dim=0)[:, :, None].expand(-1, -1, visible.shape[2])
        visible = torch.cat([visible.gather(1, lineage), own], dim=2)
        positions = (lengths + step - 1)[:, None].expand(-1, beams)
        attended = torch.cat([read, visible], dim=2)[:, None]
        logits = forward(model, token.repeat_interleave(k, dim=0), attended, positions, cache, beams)
        forbidden = end if step < target - 1 else None
        scores, token, parent = _best(_mixture(logits, log_prior), scores, beams, forbidden)
        answers = torch.cat([answers.gather(1, parent[:, :, None].expand_as(answers)), token[:, :, None]], dim=2)
    return answers[:, 0], scores[:, 0]


def forward(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, keep: int = 1
) -> torch.Tensor:
    """Logits of the last `keep` tokens."""
    names = inspect.signature(model.forward).parameters
    given = {"cache" if "cache" in names else "past_key_values": cache}
    sizes = {"use_cache": True, "logits_to_keep": keep}
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, **given, **sizes).logits


def _mixture(logits: torch.Tensor, log_prior: torch.Tensor) -> torch.Tensor:
    """`log sum_z p(z|x) p(y|x, z)` `[B, W, V]` of logits `[B * K, W, V]`."""
    log_probs = logits.float().log_softmax(dim=2).view(*log_prior.shape, *logits.shape[1:])
    return torch.logsumexp(log_probs + log_prior[:, :, None, None], dim=1)


def _best(
    log_probs: torch.Tensor, scores: torch.Tensor, beams: int, forbidden: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The scores of the best continuations, their tokens, and which beam each of them continues."""
    if forbidden is not None:
        log_probs[:, :, forbidden] = -torch.inf
    total, vocabulary = scores[:, :, None] + log_probs, log_probs.shape[2]
    scores, where = total.flatten(1).topk(beams, dim=1)
    return scores, where % vocabulary, where // vocabulary
