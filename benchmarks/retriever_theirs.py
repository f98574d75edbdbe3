"""The opponent: a step of sentence-transformers' MultipleNegativesRankingLoss in torch, as a process of its own.

As in its trainer, each column of a batch (questions, gold passages, first hard negatives, ...) is padded to its longest
and encoded by itself. With `joined` all passages are one column.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.conversation import serve, threads


def main(path: Path, layout: str, pooling: str) -> None:
    """Load the tower of the config, then take the steps that are asked for. In evaluation mode: without dropout."""
    config = json.loads(path.read_text())
    temperature, adamw = config["contrastive"]["temperature"], config["optimizer"]
    torch.set_num_threads(threads())
    set_verbosity_error()
    disable_progress_bar()
    model = AutoModel.from_pretrained(config["retriever"]["tower"], dtype=torch.float32)
    model.eval()
    parameters = list(model.parameters())
    groups = [  # biases and LayerNorms do not decay
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": adamw["weight_decay"]},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=adamw["learning_rate"], fused=True)

    def encode(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        longest = int(lengths.max())
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        states = model(input_ids=ids[:, :longest], attention_mask=mask.long()).last_hidden_state
        kept = mask[:, :, None].float()
        pooled = states[:, 0] if pooling == "cls" else (states * kept).sum(1) / kept.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1)

    def take(request: dict, inputs: dict[str, np.ndarray]) -> float:
        given = {name: torch.from_numpy(array).long() for name, array in inputs.items()}
        batch = len(given["questions"])
        size = batch if layout == "columns" else len(given["passages"])
        columns = zip(given["passages"].split(size), given["passage_lengths"].split(size), strict=True)
        questions = encode(given["questions"], given["question_lengths"])
        passages = torch.cat([encode(*column) for column in columns])
        loss = torch.nn.functional.cross_entropy(questions @ passages.T / temperature, torch.arange(batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, adamw["clip"])
        optimizer.step()
        return loss.item()

    serve(take)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
