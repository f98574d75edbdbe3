"""The knowledge store: passages, their tokens for the generator, and their vectors by the frozen passage tower.

A folder holds `passages.jsonl`, `tokens.npy` and `lengths.npy` (`<s> title / text`), `vectors.npy`, and
`manifest.json`, which says how they were made. The folder is written to the side and renamed into place, and is no
pickle; opened with what it was not made by, it says so.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.tokenizers import Vocabulary, encode_texts, fingerprint, pad
from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage, read_passages
from rag_jax.types import Knowledge, Params, Tokens, Tower, host

ENCODE_TOKENS = 4_096  # tokens in one batch while encoding, padding included
ENCODE_LADDER = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # lengths that passages are padded to


@dataclass(frozen=True)
class Encoder:
    """The frozen passage tower with its tokenizer: text to vector."""

    tower: Tower
    params: Params
    tokenizer: Tokenizer
    max_length: int
    template: str = "{title}. {text}"  # what the tower reads of a passage

    def read(self, passage: Passage) -> str:
        """The template filled in; without a title, the text alone."""
        return self.template.format(title=passage.title, text=passage.text) if passage.title else passage.text

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tower's weights and its tokenizer: vectors of different fingerprints do not mix."""
        digest = hashlib.sha256(fingerprint(self.tokenizer).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    def __call__(
        self, texts: Sequence[str], done: Callable[[int], None] = lambda count: None
    ) -> Float[np.ndarray, "texts D"]:
        """Vectors in the order of the texts. Texts are sorted by length, and `done` hears how many each batch held."""
        rows = encode_texts(self.tokenizer, texts, self.max_length)
        lengths = np.asarray([_padded(len(row)) for row in rows])
        encode, vectors = jax.jit(self.tower), np.zeros((0, 0), np.float32)
        for length in sorted(set(lengths)):
            members, size = np.flatnonzero(lengths == length), max(1, ENCODE_TOKENS // length)
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                batch = pad([rows[i] for i in np.resize(chosen, size)], length, 0)
                found = np.asarray(encode(self.params, batch))
                if not vectors.size:
                    vectors = np.zeros((len(rows), found.shape[1]), found.dtype)
                vectors[chosen] = found[: len(chosen)]
                done(len(chosen))
        return vectors


@dataclass(frozen=True)
class Store:
    """An opened knowledge store. `knowledge` is on the host; put it on the device once, and pass it to the programs."""

    passages: list[Passage]
    knowledge: Knowledge

    @property
    def is_closed_book(self) -> bool:
        """Whether there is no knowledge in it; see `closed_book`."""
        return self.passages == [NOTHING]

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of the index that each passage id has."""
        return {passage.id: row for row, passage in enumerate(self.passages)}

    def replace(self, changed: Passage, encoder: Encoder, vocabulary: Vocabulary) -> "Store":
        """The store with one passage rewritten, found by its id; nothing else changes, and nothing is trained."""
        if changed.id not in self.rows:
            raise InputError(f"no passage has the id {changed.id!r}; only passages of the index can be replaced")
        row, held = self.rows[changed.id], self.knowledge
        tokens = _tokens([changed], vocabulary, held.passages.ids.shape[1])
        vectors, ids, lengths = (np.array(part) for part in (held.vectors, *held.passages))
        vectors[row] = encoder([encoder.read(changed)])[0]
        ids[row, : tokens.ids.shape[1]], lengths[row] = tokens.ids[0], tokens.lengths[0]
        passages = [*self.passages[:row], changed, *self.passages[row + 1 :]]
        return Store(passages, Knowledge(host(vectors), Tokens(host(ids), host(lengths))))


def build(
    folder: Path,
    passages: Iterable[Passage],
    encoder: Encoder,
    vocabulary: Vocabulary,
    max_length: int,
    done: Callable[[int], None] = lambda count: None,
) -> Store:
    """Tokenise and encode a corpus into a new store; passages longer than `max_length` generator tokens are cut."""
    passages = list(passages)
    if not passages:
        raise InputError(f"{folder}: a knowledge store needs at least one passage; give a corpus that is not empty")
    vectors = encoder([encoder.read(passage) for passage in passages], done)
    store = from_vectors(passages, vectors, vocabulary, max_length)
    _write(folder, store, _made_by(encoder, vocabulary, max_length))
    return store


def from_vectors(
    passages: list[Passage], vectors: Float[np.ndarray, "N D"], vocabulary: Vocabulary, max_length: int
) -> Store:
    """A store, in memory, of passages that have their vectors already."""
    return Store(passages, Knowledge(host(vectors), _tokens(passages, vocabulary, max_length)))


def closed_book(width: int, vocabulary: Vocabulary) -> Store:
    """No knowledge: one empty passage, whose prior is one. The generator reads ` // question` alone."""
    tokens = pad([[vocabulary.bos]], 1, vocabulary.pad)
    return Store([NOTHING], Knowledge(host(np.zeros((1, width), np.float32)), tokens))


NOTHING = Passage("none", "", "")


def _write(folder: Path, store: Store, made_by: Mapping[str, str | int]) -> None:
    side = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(side, ignore_errors=True)
    write_jsonl(side / "passages.jsonl", (passage._asdict() for passage in store.passages))
    vectors, tokens = store.knowledge
    arrays = {"vectors": vectors, "tokens": tokens.ids, "lengths": tokens.lengths}
    for name, array in arrays.items():
        np.save(side / f"{name}.npy", array, allow_pickle=False)
    manifest = {
        **made_by,
        "passages": len(store.passages),
        "arrays": {name: [str(array.dtype), *array.shape] for name, array in arrays.items()},
    }
    (side / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(side, folder)


def open_store(folder: Path, encoder: Encoder | None, vocabulary: Vocabulary, max_length: int) -> Store:
    """Open a store that was built with just this encoder (None: whichever it was) and vocabulary.

    Raises `InputError` for a store that is missing, damaged, or made by another tower, tokenizer or length.
    """
    manifest = read_manifest(folder)
    for key, value in _made_by(encoder, vocabulary, max_length).items():
        if manifest.get(key) != value:
            raise InputError(f"{folder}: built with {key} {manifest.get(key)}, the run has {value}; build it anew")
    arrays = {}
    for name, (dtype, *shape) in manifest["arrays"].items():
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete {folder} to build it anew") from None
        if [str(arrays[name].dtype), *arrays[name].shape] != [dtype, *shape]:
            raise InputError(f"{path}: not the array that the manifest describes; delete {folder} to build it anew")
    passages = list(read_passages(folder / "passages.jsonl"))
    return Store(passages, Knowledge(arrays["vectors"], Tokens(arrays["tokens"], arrays["lengths"])))


def _tokens(passages: Sequence[Passage], vocabulary: Vocabulary, max_length: int) -> Tokens:
    """The generator's tokens, as small as they can be stored."""
    rows = vocabulary.passages([(passage.title, passage.text) for passage in passages], max_length)
    dtype = np.uint16 if vocabulary.size <= 2**16 else np.uint32
    return pad(rows, min(max_length, -(-max(map(len, rows)) // 8) * 8), vocabulary.pad, dtype)


def _padded(length: int) -> int:
    return next((step for step in ENCODE_LADDER if length <= step), length)


def _made_by(encoder: Encoder | None, vocabulary: Vocabulary, max_length: int) -> dict[str, str | int]:
    """What a store depends on, as far as it is known."""
    tower = encoder and {
        "tower": encoder.fingerprint,
        "tower_length": encoder.max_length,
        "tower_reads": encoder.template,
    }
    return (tower or {}) | {
        "vocabulary": fingerprint(vocabulary.tokenizer),
        "passage_length": max_length,
        "generator_reads": vocabulary.passage_template,
    }


def read_manifest(folder: Path) -> dict:
    """What a store says of itself. Raises `InputError` where there is none."""
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no knowledge store there; build one or name another folder") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: damaged; delete {folder} to build it anew") from None
