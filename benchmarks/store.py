"""A knowledge store of any size, built, opened and searched: rag-jax benchmark store [--passages N] [--width D]

Each step runs in a process of its own, whose peak memory is told. The passages are random words, the tower is the mean
of random word vectors: what is measured is the store, not a network.
"""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rag_jax.config.command_line import parse
from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.index import building
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Queries
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.placement import Placement
from rag_jax.index.store import open_store

WORDS = 20_000
LENGTH = 30  # words of a passage
STEPS = ("build", "open", "search")


@dataclass(frozen=True)
class StoreBenchmark:
    """Build, open and search a store."""

    passages: int = 1_000_000
    width: int = 384
    folder: Path = Path("runs/store_benchmark")  # deleted at the end
    step: Literal["all", "build", "open", "search"] = "all"


def main(arguments: Sequence[str]) -> None:
    """Print each step's time and peak memory."""
    case = parse(
        StoreBenchmark,
        arguments,
        remedy="rag-jax benchmark store --help lists all options",
        prog="rag-jax benchmark store",
    )
    if min(case.passages, case.width) < 1:
        raise InputError("passages and width: one is below 1; give numbers above 0")
    if case.step in STEPS:
        {"build": build, "open": opened, "search": search}[case.step](case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{case.step}: peak memory {peak:.2f} GB")
        return
    if case.folder.exists():
        raise InputError(f"{case.folder}: exists; delete it, or name another --folder")
    try:
        for step in STEPS:
            subprocess.run(
                [sys.executable, "-m", "rag_jax.cli", "benchmark", "store", *arguments, "--step", step], check=True
            )
    finally:
        shutil.rmtree(case.folder, ignore_errors=True)


def build(case: StoreBenchmark) -> None:
    """The three steps of a build."""
    began = time.perf_counter()
    building.build(case.folder, corpus(case.passages), encoder(case.width), reads())
    seconds = time.perf_counter() - began
    print(f"build: {case.passages:,} passages x {case.width} in {seconds:.0f} s, {case.passages / seconds:,.0f}/s")
    held = sum(file.stat().st_size for file in case.folder.rglob("*") if file.is_file())
    print(f"build: {held / 1e9:.2f} GB on the disk")


def opened(case: StoreBenchmark) -> None:
    """Opening it, as every run does."""
    network, words = encoder(case.width), reads()
    print(f"open: fingerprint {network.fingerprint}")
    began = time.perf_counter()
    store = open_store(case.folder, network, words)
    print(f"open: {len(store):,} passages in {1e3 * (time.perf_counter() - began):.0f} ms")


def search(case: StoreBenchmark) -> None:
    """Exact search on the device, beside numpy's inner products for a few queries."""
    store = open_store(case.folder, None, None)
    began = time.perf_counter()
    engine = DeviceIndex.of(store, Placement())
    jax.block_until_ready(engine.knowledge)
    print(f"search: onto the device in {time.perf_counter() - began:.1f} s")
    for count in (1, 64):
        queries = np.random.default_rng(count).standard_normal((count, case.width)).astype(np.float32)
        asked = Queries([""] * count, queries)
        hits = engine.search(asked, 10)
        times = sorted(1e3 * _timed(lambda asked=asked: engine.search(asked, 10)) for _ in range(5))
        print(f"search: {count} queries in {times[2]:.0f} ms ({times[0]:.0f} to {times[-1]:.0f})")
        best = np.concatenate([queries[:1] @ block.T for block in store.passage_vectors.blocks(65_536)], axis=1)[0]
        expected = np.sort(best)[::-1][:10]
        np.testing.assert_allclose(hits.scores[0], expected, rtol=1e-4)


def corpus(count: int) -> Iterator[Passage]:
    """Passages of random words."""
    draw, words = np.random.default_rng(0), np.array([f"w{i}" for i in range(WORDS)])
    for start in range(0, count, 10_000):
        chosen = words[draw.integers(0, WORDS, (min(10_000, count - start), LENGTH))]
        for row, each in enumerate(chosen, start=start + 1):
            yield Passage(str(row), str(each[0]), " ".join(each))


def encoder(width: int) -> TextEncoder:
    """The mean of random word vectors."""

    def tower(params, tokens, key=None):
        weight = tokens.mask / tokens.lengths[:, None]
        return jnp.einsum("BQ,BQD->BD", weight, params[tokens.ids])

    table = np.random.default_rng(1).standard_normal((WORDS + 5, width)).astype(np.float32)
    return TextEncoder(tower, jnp.asarray(table), _tokenizer(), 64, "{text}")


def reads() -> PassageTokenizer:
    """A generator that knows the words."""
    return PassageTokenizer(generator_tokenizer(_tokenizer(), "the benchmark"), 64)


def _tokenizer() -> Tokenizer:
    words = ["<s>", "<pad>", "</s>", "<unk>", "/", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
