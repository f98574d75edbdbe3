"""The opponent: the same training step by transformers' RAG in torch, with autocast to bfloat16 and SDPA.

It gets the passages that were found: its step searches nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accelerator.part import Record, run, seconds, spread
from benchmarks.accelerator.scale import Scale
from benchmarks.theirs import load
from benchmarks.train_cases import CLIP, RATE, fixed
from benchmarks.train_theirs import groups


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Seconds of a step, questions per second, memory, and losses."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    rag: Any = load("token", weights).to(where)
    optimizer = torch.optim.AdamW(groups(rag), lr=RATE, fused=where == "cuda")
    inputs = batch(scale, weights)
    given = {name: torch.from_numpy(array).to(where) for name, array in inputs.items()}
    docs, losses = scale.train.docs, []
    vectors = given["vectors"].view(scale.train.questions, docs, -1)

    def take() -> None:
        with torch.autocast(where, torch.bfloat16):
            queries = rag.question_encoder(given["question"], attention_mask=torch.ones_like(given["question"]))[0]
            told = rag(
                context_input_ids=given["contexts"],
                context_attention_mask=torch.ones_like(given["contexts"]),
                doc_scores=torch.einsum("bd,bkd->bk", queries.float(), vectors),
                labels=given["labels"],
                n_docs=docs,
                reduce_loss=True,
            )
            loss = told.loss / scale.train.questions
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rag.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.detach())

    def stretch() -> None:
        for _ in range(scale.stretch):
            take()
        losses[-1].item()  # waits

    stretch()
    times, tokens = [], scale.train.target - 1
    for _ in range(scale.rounds):  # each is written at once
        times += [each / scale.stretch for each in seconds(stretch, 1)]
        told = spread(times) | {"questions/s": scale.train.questions / spread(times)["median"], "peak": peak()}
        record(**told, times=times, losses=[loss.item() / tokens for loss in losses])


def batch(scale: Scale, weights: Path) -> dict[str, np.ndarray]:
    """What this library found for its first batch; where it left none, random passages of the same lengths."""
    path = weights / "batch.npz"
    found = dict(np.load(path)) if path.exists() else fixed(scale.train, scale.networks.tower_width, 1)[0]
    kept = {name: found[name] for name in ("question", "contexts", "vectors", "labels")}
    return {name: array if name == "vectors" else array.astype(np.int64) for name, array in kept.items()}


def peak() -> int | None:
    """The most bytes of the device's memory in use."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


if __name__ == "__main__":
    run(main)
