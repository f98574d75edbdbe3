"""The opponent: a training step of transformers' RAG in torch. A process of its own that answers requests."""

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.conversation import serve, threads
from benchmarks.theirs import load
from benchmarks.train_cases import CLIP, DECAY, RATE, Arrays


def main(folder: Path, model: str, docs: int) -> None:
    """Load the weights that both sides start from, then take the steps that are asked for.

    In evaluation mode: without dropout, so that both sides compute the same.
    """
    torch.set_num_threads(threads())
    rag = load(model, folder)
    optimizer = torch.optim.AdamW(groups(rag), lr=RATE)

    def take(request: dict, inputs: Arrays) -> float:
        given = {name: torch.from_numpy(array).long() for name, array in inputs.items() if array.ndim == 2}
        vectors = torch.from_numpy(inputs["vectors"]).view(len(given["question"]), docs, -1)
        queries = rag.question_encoder(given["question"], attention_mask=mask(inputs, "question", "question"))[0]
        labels = given["labels"][:, : int(inputs["longest_label"])]
        told = rag(
            context_input_ids=given["contexts"],
            context_attention_mask=mask(inputs, "context", "contexts"),
            doc_scores=torch.einsum("bd,bkd->bk", queries, vectors),
            labels=labels,
            n_docs=docs,
            reduce_loss=True,
        )
        loss = told.loss / len(queries)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rag.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    serve(take)


def mask(inputs: Arrays, name: str, tokens: str) -> torch.Tensor:
    columns = torch.arange(inputs[tokens].shape[1])
    return (columns[None, :] < torch.from_numpy(inputs[f"{name}_lengths"])[:, None]).long()


def groups(rag: torch.nn.Module) -> list[dict[str, Any]]:
    """Weights decay; biases and LayerNorms do not."""
    named = [(name, each) for name, each in rag.named_parameters() if each.requires_grad]
    spared = [each for name, each in named if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name]
    spared += [each for name, each in named if "layernorm" in name and not name.endswith("bias")]
    ids = set(map(id, spared))
    return [
        {"params": [each for _, each in named if id(each) not in ids], "weight_decay": DECAY},
        {"params": spared, "weight_decay": 0.0},
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
