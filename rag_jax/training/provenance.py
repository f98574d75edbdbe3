"""What a run depends on, by content: a resumed run must go on with all of it, wherever it lies now.

Whatever changes nothing of what is read does not count: a file touched or moved, an index built again to the same
bytes, engines and other generators' tokens in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxtyping import PyTree

from rag_jax.config import keys
from rag_jax.config.config import Config
from rag_jax.config.files import AnyConfig
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError
from rag_jax.index.engines.registry import ENGINES
from rag_jax.models import registry
from rag_jax.models.architecture import changed_fields
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoints import HostState
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.digests import PASSAGES
from rag_jax.types import RagParams

Dependencies = dict[str, str]
"""Digests by the name of their source."""

QUESTIONS, VECTORS, ENGINE = "training questions", "passage vectors", "FAISS index"
NEGATIVES = "hard negatives"
TOWER_TOKENIZER, GENERATOR_TOKENIZER = "question tower's tokenizer", "generator's tokenizer"
PROMPT = "prompt of the generator's tokenizer"
NETWORKS, START = "pretrained networks", "parameters to start from"

KEYS = {
    # the config keys that locate each source
    QUESTIONS: ("data.train",),
    NEGATIVES: ("data.negatives", "data.train"),
    PASSAGES: ("data.index", "data.passages"),
    VECTORS: ("data.index",),
    ENGINE: ("data.index",),
    TOWER_TOKENIZER: ("retriever.tower",),
    GENERATOR_TOKENIZER: ("generator.tokenizer", "generator.checkpoint"),
    PROMPT: ("generator.checkpoint",),
    NETWORKS: ("retriever.tower", "generator.checkpoint", "retriever.adapter", "generator.adapter"),
    START: ("start_from",),
}
RELOCATABLE = ("retriever.passage_tower", *dict.fromkeys(key for keys in KEYS.values() for key in keys))
"""Config keys whose paths may change: only the contents count."""


def run_dependencies(components: Components, questions: Sequence[Question], first: RagParams | None) -> Dependencies:
    """Digests of everything that training depends on, except an index that is not built yet.

    Args:
        first: the initial parameters, if they come from another run.
    """
    return (
        {QUESTIONS: digests.digest(_question_bytes(questions, components.config))}
        | evaluation_dependencies(components)
        | start_dependency(first)
    )


def start_dependency(first: PyTree | None) -> Dependencies:
    """The digest of the parameters that a run begins from, if they come from another run."""
    return {} if first is None else {START: digests.digest(digests.parameter_bytes(first))}


def may_have_begun_from(host_state: HostState | None, first: PyTree) -> bool:
    """Whether these are the parameters that a run began from, or it has not begun."""
    return host_state is None or host_state.get("made_of", {}).get(START) == start_dependency(first)[START]


def evaluation_dependencies(components: Components) -> Dependencies:
    """Digests of what an evaluation depends on: the pretrained networks, both tokenizers and the index."""
    bi_encoder = components.bi_encoder
    tower_input = [fingerprint(bi_encoder.tokenizer), *bi_encoder.input_format[1:]]
    tokenizers = {
        TOWER_TOKENIZER: digests.digest([digests.json_bytes(tower_input)]),
        GENERATOR_TOKENIZER: fingerprint(components.generator_tokenizer.tokenizer),
    }
    # A decoder-only generator's chat template and end token are its checkpoint's, and may change there.
    if registry.generator_of(components.generator.config).is_decoder_only:
        tokenizers[PROMPT] = digests.digest([digests.json_bytes(components.generator_tokenizer[1:])])
    networks = {NETWORKS: digests.digest(_network_bytes(components))}
    return networks | tokenizers | index_dependencies(components)


def index_dependencies(components: Components) -> Dependencies:
    """Digests of the index: passages, vectors, and the engine if its search is approximate."""
    store = components.store
    if store.manifest is None and store.has_no_tokens:
        return {}
    dependencies = {
        PASSAGES: digests.digest(digests.passage_bytes(store)),
        VECTORS: digests.digest(digests.vector_bytes(store)),
    }
    engine = components.config.retriever.engine
    decisive = ENGINES[engine].depends_on
    if decisive and store.manifest is not None:
        facts = store.manifest.engines.get(engine, {})
        dependencies[ENGINE] = digests.digest([digests.json_bytes({name: facts.get(name) for name in decisive})])
    return dependencies


def check_same(host_state: HostState | None, now: Dependencies, config: AnyConfig, workdir: Path) -> Dependencies:
    """Merge the digests with those in the checkpoint. Raises `InputError` where they differ.

    Also for a run that began from another's parameters where the config names none to start from.
    """
    if host_state is None:
        return now
    was = host_state.get("made_of")
    if was is None:
        raise InputError(f"{workdir}: checkpoints of an earlier version of this library; begin another --workdir")
    changed = [name for name in now if was.get(name) != now[name]]
    if config.start_from is None and START in was and START not in changed:
        changed.append(START)
    if changed:
        names = ", ".join(_with_path(name, config) for name in changed)
        remedy = "give those of then, or begin another --workdir, which may start_from this one"
        raise InputError(f"{workdir}: trained with other {names}; {remedy}")
    return was | now


def _with_path(name: str, config: AnyConfig) -> str:
    """The name of a source, with the path in the config."""
    known = set(keys.names(type(config)))
    found = (keys.value(config, key) for key in KEYS[name] if key in known)
    path = next((each for each in found if each is not None), None)
    return name if path is None else f"{name} ({path})"


def _question_bytes(questions: Iterable[Question], config: Config) -> Iterator[bytes]:
    """The fields of each question that training reads; `passage_ids` only with an engine that uses them."""
    fixed = ENGINES[config.retriever.engine].reads_question_file
    for each in questions:
        fields = (each if fixed else each._replace(passage_ids=()))._asdict()
        del fields["negative_ids"]
        yield digests.json_bytes(list(fields.values()))


def _network_bytes(components: Components) -> Iterator[bytes]:
    """The sizes and weights of the checkpoints. Random weights follow from the config and seed, up to rounding."""
    yield digests.json_bytes(changed_fields(components.bi_encoder.config))
    yield from digests.parameter_bytes(components.bi_encoder.params)
    if components.config.generator.checkpoint is not None:
        yield digests.json_bytes(changed_fields(components.generator.config))
        yield from digests.parameter_bytes(components.generator.params)
