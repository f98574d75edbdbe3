"""What a run depends on, by content: a resumed run must go on with all of it, wherever it lies now.

Whatever changes nothing of what is read does not count: a file touched or moved, an index built again to the same
bytes, engines and other generators' tokens in it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_jax.config import keys
from rag_jax.config.config import Config
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError
from rag_jax.index.engines.registry import ENGINES
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoints import HostState
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams

Dependencies = dict[str, str]
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
RELOCATABLE = ("retriever.passage_tower", *dict.fromkeys(key for keys in KEYS.values() for key in keys))
"""Keys of the config whose places do not count."""


def run_dependencies(components: Components, questions: Sequence[Question], first: RagParams | None) -> Dependencies:
    """What training depends on, an index that is still to be built aside; `first` where it starts from another run."""
    c = components.config
    told = {
        QUESTIONS: digests.of(_asked(questions, c)),
        NETWORKS: digests.of(_networks(components)),
    }
    return (
        told
        | evaluation_dependencies(components)
        | ({} if first is None else {START: digests.of(digests.leaves(first))})
    )


def evaluation_dependencies(components: Components) -> Dependencies:
    """What an evaluation depends on as well: both tokenizers, and the index."""
    words = {
        TOWER_TOKENIZER: digests.of(
            [digests.plain([fingerprint(components.bi_encoder.tokenizer), *components.bi_encoder.input_format[1:]])]
        ),
        GENERATOR_TOKENIZER: fingerprint(components.generator_tokenizer.tokenizer),
    }
    return words | index_dependencies(components)


def index_dependencies(components: Components) -> Dependencies:
    """What training depends on of a knowledge store: the rows, and an engine that is not exact where it searches."""
    store = components.store
    if store.manifest is None and store.has_no_tokens:
        return {}
    told = {PASSAGES: digests.of(digests.passages(store)), VECTORS: digests.of(digests.vectors(store))}
    engine = components.config.retriever.engine
    decisive = ENGINES[engine].depends_on
    if decisive and store.manifest is not None:
        facts = store.manifest.engines.get(engine, {})
        told[ENGINE] = digests.of([digests.plain({name: facts.get(name) for name in decisive})])
    return told


def check_same(host_state: HostState | None, now: Dependencies, config: Config, workdir: Path) -> Dependencies:
    """What a run depends on, with what only its checkpoint knows. Raises `InputError` where that is not the same."""
    if host_state is None:
        return now
    was = host_state.get("made_of")
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
    found = (keys.value(config, key) for key in KEYS[name])
    path = next((each for each in found if each is not None), None)
    return name if path is None else f"{name} ({path})"


def _asked(questions: Iterable[Question], config: Config) -> Iterator[bytes]:
    """Of each question what training reads: passages found beforehand only where they are."""
    fixed = ENGINES[config.retriever.engine].reads_question_file
    for each in questions:
        yield digests.plain(each if fixed else each._replace(passage_ids=()))


def _networks(components: Components) -> Iterator[bytes]:
    """The checkpoints' sizes and weights. Random weights follow from the config, but for rounding on other devices."""
    yield digests.plain(_unusual(components.bi_encoder.config))
    yield from digests.leaves(components.bi_encoder.params)
    if components.config.generator.checkpoint is not None:
        yield digests.plain(_unusual(components.generator.config))
        yield from digests.leaves(components.generator.params)


def _unusual(config: Any) -> Mapping[str, str]:
    """The fields of a dataclass that are not what they are by default: fields to come do not count."""
    fields = dataclasses.fields(config)
    return {
        each.name: repr(getattr(config, each.name)) for each in fields if getattr(config, each.name) != each.default
    }
