"""What a run depends on, by content: a resumed run must go on with all of it, wherever it lies now.

Whatever changes nothing of what is read does not count: a file touched or moved, an index built again to the same
bytes, engines and other generators' tokens in it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_jax.config import config as configs
from rag_jax.config.config import Config
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError
from rag_jax.index.engines.registry import ENGINES
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoints import Place
from rag_jax.pipeline.components import Parts
from rag_jax.types import RagParams

MadeOf = dict[str, str]
"""Digests by what they are of, in words."""

QUESTIONS, PASSAGES, VECTORS, ENGINE = "training questions", "passages", "passage vectors", "FAISS index"
TOWER_TOKENIZER, GENERATOR_TOKENIZER = "question tower's tokenizer", "generator's tokenizer"
NETWORKS, START = "pretrained networks", "parameters to start from"

KEYS = {
    # where the config says where it is
    QUESTIONS: ("data.train",),
    PASSAGES: ("data.index", "data.passages"),
    VECTORS: ("data.index",),
    ENGINE: ("data.index",),
    TOWER_TOKENIZER: ("retriever.tower",),
    GENERATOR_TOKENIZER: ("generator.tokenizer", "generator.checkpoint"),
    NETWORKS: ("retriever.tower", "generator.checkpoint"),
    START: ("start_from",),
}
MOVED = ("retriever.passage_tower", *dict.fromkeys(key for keys in KEYS.values() for key in keys))
"""Keys of the config whose places do not count."""


def made_of(parts: Parts, questions: Sequence[Question], first: RagParams | None) -> MadeOf:
    """What training depends on, an index that is still to be built aside; `first` where it starts from another run."""
    c = parts.config
    told = {
        QUESTIONS: digests.of(_asked(questions, c)),
        NETWORKS: digests.of(_networks(parts)),
    }
    return told | read(parts) | ({} if first is None else {START: digests.of(digests.leaves(first))})


def read(parts: Parts) -> MadeOf:
    """What an evaluation depends on as well: both tokenizers, and the index."""
    words = {
        TOWER_TOKENIZER: digests.of(
            [digests.plain([fingerprint(parts.towers.tokenizer), *parts.towers.convention[1:]])]
        ),
        GENERATOR_TOKENIZER: fingerprint(parts.vocabulary.tokenizer),
    }
    return words | index(parts)


def index(parts: Parts) -> MadeOf:
    """What training depends on of a knowledge store: the rows, and an engine that is not exact where it searches."""
    store = parts.store
    if store.manifest is None and store.is_bare:
        return {}
    told = {PASSAGES: digests.of(digests.passages(store)), VECTORS: digests.of(digests.vectors(store))}
    engine = parts.config.retriever.engine
    decisive = ENGINES[engine].depends_on
    if decisive and store.manifest is not None:
        facts = store.manifest.engines.get(engine, {})
        told[ENGINE] = digests.of([digests.plain({name: facts.get(name) for name in decisive})])
    return told


def check_same(place: Place | None, now: MadeOf, config: Config, workdir: Path) -> MadeOf:
    """What a run depends on, with what only its checkpoint knows. Raises `InputError` where that is not the same."""
    if place is None:
        return now
    was = place.get("made_of")
    if was is None:
        raise InputError(f"{workdir}: checkpoints of an earlier version of this library; begin another --workdir")
    changed = [name for name in now if was.get(name) != now[name]]
    if changed:
        told = ", ".join(_placed(name, config) for name in changed)
        remedy = "give those of then, or begin another --workdir, which may start_from this one"
        raise InputError(f"{workdir}: trained with other {told}; {remedy}")
    return was | now


def _placed(name: str, config: Config) -> str:
    """The words, and where the config says that it is."""
    found = (configs.value(config, key) for key in KEYS[name])
    place = next((each for each in found if each is not None), None)
    return name if place is None else f"{name} ({place})"


def _asked(questions: Iterable[Question], config: Config) -> Iterator[bytes]:
    """Of each question what training reads: passages found beforehand only where they are."""
    fixed = ENGINES[config.retriever.engine].from_questions
    for each in questions:
        yield digests.plain(each if fixed else each._replace(passage_ids=()))


def _networks(parts: Parts) -> Iterator[bytes]:
    """The checkpoints' sizes and weights. Random weights follow from the config, but for rounding on other devices."""
    yield digests.plain(_unusual(parts.towers.config))
    yield from digests.leaves(parts.towers.params)
    if parts.config.generator.checkpoint is not None:
        yield digests.plain(_unusual(parts.reader.config))
        yield from digests.leaves(parts.reader.params)


def _unusual(config: Any) -> Mapping[str, str]:
    """The fields of a dataclass that are not what they are by default: fields to come do not count."""
    fields = dataclasses.fields(config)
    return {
        each.name: repr(getattr(config, each.name)) for each in fields if getattr(config, each.name) != each.default
    }
