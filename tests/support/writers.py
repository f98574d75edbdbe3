"""Writers of a knowledge store as processes, and what some order of their changes makes of it.

Encoder and generator are made by hand, without JAX: a fork would not have its threads.
"""

import hashlib
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rag_jax.corpus import Chunker
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import building, documents, manifest, ownership, updates
from rag_jax.index.engines import store_engines
from rag_jax.index.passage_tokenizer import PassageTokens
from rag_jax.index.store import add_tokens, open_store
from rag_jax.index.truncation import Truncation

WIDTH = 64


class ByWords:
    """An encoder: a vector is what the digest of a passage's text says."""

    origin = {"source": "words"}  # noqa: RUF012
    spec = {"fingerprint": "words", "max_length": 8, "template": "{text}", "norm": None}  # noqa: RUF012

    def encode_and_count_truncation(
        self, passages: list[Passage], on_progress: Callable[[int], None] = lambda count: None
    ) -> tuple[np.ndarray, Truncation]:
        seeds = (int.from_bytes(hashlib.sha256(passage.text.encode()).digest()[:4], "little") for passage in passages)
        found = np.stack([np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32) for seed in seeds])
        on_progress(len(found))
        return found, Truncation()


class ByLetters:
    """What a generator reads: the first eight letters."""

    tokenizer = SimpleNamespace(pad=0)
    spec = {"tokenizer": "letters", "template": "{text}", "max_length": 8}  # noqa: RUF012
    key = "0123456789abcdef"
    folder = f"tokens-{key}"

    def tokenize(self, passages: Sequence[Passage]) -> PassageTokens:
        rows = [passage.text.encode()[:8].ljust(8, b"\0") for passage in passages]
        ids = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 8).astype(np.uint16)
        return PassageTokens(ids, np.full(len(rows), 8, np.int32), Truncation())


ENCODER: Any = ByWords()
READS: Any = ByLetters()
State = tuple[Passage, ...]


@dataclass(frozen=True)
class Op:
    """A change: its name in the journal, how it is made, and what it makes of what a store holds (None: it cannot)."""

    name: str
    act: Callable[[Path], object]
    model: Callable[[State], State | None] = lambda state: state


def corpus(name: str, count: int, words: int = 14) -> list[Passage]:
    """Documents of two pieces, and of one."""
    wholes = [Passage(f"{name}{i}", name, f"{name} {i} " * (words if i % 3 else 3)) for i in range(count)]
    return [piece for whole in wholes for piece in Chunker(20).chunks(whole)]


def build(folder: Path, passages: list[Passage], segment: int = 50) -> None:
    """As `rag-jax index --change swap` does it."""
    with ownership.claim_and_lock(folder):
        plan = building.read(
            folder, passages, building.make_build_spec(ENCODER, None, corpus={"of": passages}), segment
        )
        building.encode(folder, plan, ENCODER, None)
        building.commit(folder, plan, ENCODER, None)


def builds(passages: list[Passage], segment: int = 50) -> Op:
    return Op("build", lambda folder: build(folder, passages, segment), lambda state: tuple(passages))


def adds(passages: list[Passage]) -> Op:
    def model(state: State) -> State | None:
        taken = {old.id for old in state} & {new.id for new in passages}
        return None if taken else (*state, *passages)

    return Op("add", lambda folder: updates.add(folder, passages, ENCODER), model)


def removes(document: str) -> Op:
    def model(state: State) -> State | None:
        left = tuple(old for old in state if documents.document_id(old) != document)
        return left if len(left) < len(state) else None

    return Op("remove", lambda folder: updates.remove(folder, [document]), model)


def replaces(passages: list[Passage]) -> Op:
    gone = {documents.document_id(passage) for passage in passages}

    def model(state: State) -> State | None:
        left = tuple(old for old in state if documents.document_id(old) not in gone)
        return (*left, *passages) if gone <= {documents.document_id(old) for old in state} else None

    return Op("replace", lambda folder: updates.replace(folder, passages, ENCODER), model)


def swaps(other: Path, passages: list[Passage]) -> Op:
    return Op("swap", lambda folder: updates.swap(folder, other), lambda state: tuple(passages))


COUNTS = Op("engine bm25", lambda folder: store_engines.add_bm25(open_store(folder, None, None)))
TOKENISES = Op("tokenise", lambda folder: add_tokens(folder, READS))


def started(work: Callable[[], object]) -> int:
    """The process that works."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(sys.exc_info()[0] is not None)
    return child


def ended(child: int) -> None:
    """Wait for it; nothing but refusals may have happened there."""
    assert os.waitpid(child, 0)[1] == 0, "a process ended in a traceback"


def work(folder: Path, ops: Sequence[Op], log: Path, chance: random.Random, pause: float) -> None:
    """Make changes, and write down what became of each: a line for one that was made, or refused and why."""
    with log.open("a", buffering=1) as file:
        for number, op in enumerate(ops):
            time.sleep(chance.uniform(0, pause))
            ownership.LOCK_TIMEOUT = chance.choice([0, 0.05, 1.0])
            try:
                op.act(folder)
                became = "made"
            except InputError as error:
                became = f"refused {error}"
            assert became == "made" or re.fullmatch("[^\n]+; [^\n]+", became), "one line, with a remedy"
            file.write(f"{number} {became}\n")


def told(log: Path, ops: Sequence[Op]) -> tuple[list[Op], list[str]]:
    """The changes that were made, and the refusals of the others."""
    lines = [line.split(" ", 2) for line in (log.read_text().splitlines() if log.exists() else ())]
    made = [ops[int(line[0])] for line in lines if line[1] == "made"]
    return made, [line[2] for line in lines if line[1] == "refused"]


def held(folder: Path) -> State | None:
    """What a store holds, every byte of it verified; None where there is none."""
    if not (folder / manifest.FILE).exists():
        return None
    found = manifest.read(folder)
    manifest.verify(folder, found)
    store = open_store(folder, None, None)
    store_engines.open_bm25(store)
    passages = tuple(store.live_passages())
    assert len({passage.id for passage in passages}) == len(passages)
    rows = store.find([passage.id for passage in passages])
    np.testing.assert_array_equal(store.passage_vectors[rows], ENCODER.encode_and_count_truncation(passages)[0])
    return passages


def journal(folder: Path) -> list[str]:
    """What changed, in order; tokens change nothing that is held."""
    changes = manifest.read(folder).changes if (folder / manifest.FILE).exists() else ()
    return [change["change"] for change in changes if change["change"] != TOKENISES.name]


def merges(first: Sequence[Op], second: Sequence[Op]) -> Iterator[list[Op]]:
    """Both sequences as one, in every order."""
    if not (first and second):
        yield [*first, *second]
        return
    yield from ([first[0], *rest] for rest in merges(first[1:], second))
    yield from ([second[0], *rest] for rest in merges(first, second[1:]))


def explained(folder: Path, before: State | None, known: list[str], first: Sequence[Op], second: Sequence[Op]) -> bool:
    """Whether some order of two writers' changes makes what is held, and the journal after what was `known`."""
    now, names = held(folder), journal(folder)
    counted = [[op for op in ops if op is not TOKENISES] for ops in (first, second)]
    for order in merges(*counted):
        state: State | None = before or ()
        for op in order:
            state = None if state is None else op.model(state)
        same = state is not None and (state == now or (not order and now is None))
        if same and names == [*known, *(op.name for op in order)]:
            return True
    return False


def leftovers(folder: Path) -> set[str]:
    """Parts that neither a version nor an unfinished build names, once the next writer has looked."""
    with manifest.transaction(folder) as found:
        pass
    plan = manifest.find_pending_build(folder, found)
    there = {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    own = {part for part in there if plan is not None and Path(part).name in plan.names}
    return there - set(found.parts) - own
