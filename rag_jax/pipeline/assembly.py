"""Load the components of a run from its config: networks with initial parameters, tokenizers, knowledge store."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from tokenizers import Tokenizer

from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.corpus import read_passages
from rag_jax.corpus.chunking import Cut
from rag_jax.corpus.passage import Passage
from rag_jax.data import templates, validation
from rag_jax.data.questions import check_targets, read_questions
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer, train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub import adapters, loading, tokenizers
from rag_jax.index import manifest
from rag_jax.index.building import build
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store, add_tokens, closed_book, without_vectors
from rag_jax.models import registry
from rag_jax.pipeline import (
    checkpoint_index,
    finetuning,
    length_limits,
    networks,
    pretrained,
    refreshing,
    vectors,
    workdir_tokenizers,
)
from rag_jax.pipeline.components import BiEncoder, Components, GeneratorBundle
from rag_jax.pipeline.opened_index import check_corpus, open_index
from rag_jax.pipeline.prompt import with_prompt
from rag_jax.types import RagParams


def assemble(config: Config, workdir: Path, index: Path | None = None, tokens: bool = True) -> Components:
    """The components of a run that has started, from its config and its workdir. Writes nothing.

    Args:
        index: instead of the run's; the lengths that its passages were read with replace the config's.
        tokens: with the tokens of its passages; False: for a model that is neither asked nor searched.

    The index of a run that trains its passage tower is the one that it wrote when it ended, or else has the vectors of
    its newest checkpoint. Raises `InputError` for components that are missing or do not match.
    """
    begun, refreshed = config, workdir / refreshing.FOLDER
    is_own = index is None and config.retriever.train_passages
    index = refreshed if is_own else index
    config = pretrained.with_index(config, index)
    tokenizer = workdir_tokenizers.load(workdir, networks.special_tokens(config))
    bi_encoder, generator = load_networks(config, workdir, [])
    if index is not None:
        config = pretrained.with_length_of_index(config, generator.tokenizer)
    workdir_tokenizers.check(bi_encoder, tokenizer, workdir)
    step = None
    if config.retriever.train_passages:
        step, params = refreshing.newest_params(config, workdir, bi_encoder, generator)
        trained = refreshing.with_passage_tower(bi_encoder, params.passage_tower, workdir)
        if is_own and not refreshing.is_current(refreshed, trained.required_passage_encoder):
            store = open_index(index_folder(begun, workdir), begun, bi_encoder, generator, tokens)
            store = checkpoint_index.as_searched(store, begun, workdir, step) if tokens else store
            return Components(begun, trained, generator, store, step=step)
        bi_encoder = trained
    store = _existing_store(config, workdir, [], bi_encoder, generator)
    if tokens and store.has_no_tokens:
        store = open_index(index_folder(config, workdir), config, bi_encoder, generator)
    return Components(config, bi_encoder, generator, store, step=step)


def prepare(config: Config, workdir: Path, corpus: list[Passage]) -> Components:
    """The components of a run, checked before anything is written.

    Trains the generator's tokenizer where there is none yet. An existing store has no passage tokens yet; a store still
    to be built from a corpus (`read_corpus`) has its passages only. `open_components` completes it. Raises `InputError`
    for components that are missing or do not match.
    """
    bi_encoder, generator = load_networks(config, workdir, corpus)
    finetuning.check_names(config, RagParams(bi_encoder.params, generator.params))
    networks.check_dropout(config, generator.config)
    store = _existing_store(config, workdir, corpus, bi_encoder, generator)
    return Components(config, bi_encoder, generator, store)


def load_networks(config: Config, workdir: Path, corpus: list[Passage]) -> tuple[BiEncoder, GeneratorBundle]:
    """The networks of a run as it begins, the generator with the tokenizer that the run has saved."""
    tokenizer = workdir_tokenizers.load_if_present(workdir, networks.special_tokens(config))
    return load_bi_encoder(config), load_generator(config, tokenizer, corpus)


def open_components(
    components: Components, workdir: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> Components:
    """The components of a run with their complete store, which is built or given this generator's tokens if need be.

    Args:
        report: called with the number of encoded passages and their total, after every 5%.

    Raises `InputError` for a store that cannot be written.
    """
    if not components.store.has_no_tokens:
        return components
    folder = index_folder(components.config, workdir)
    if components.store.manifest is not None:
        add_tokens(folder, components.passage_tokenizer)
        store = open_index(folder, components.config, components.bi_encoder, components.generator)
    else:
        corpus = list(components.store.passages)
        store = build(
            folder,
            corpus,
            components.bi_encoder.required_passage_encoder,
            components.passage_tokenizer,
            every_twentieth(len(corpus), report),
            cut=Cut(components.config.data.passage_words),
        )
    return dataclasses.replace(components, store=store)


def compose(config: Config, index: Path | None = None) -> Components:
    """The components of a config over its existing index, in any layout; closed book without one.

    Args:
        index: instead of the config's; the lengths that its passages were read with replace the config's.

    Raises `InputError` for components that are missing or do not match.
    """
    validation.validate_dataclass(Config, config)
    config = pretrained.with_index(config, index)
    bi_encoder, generator = load_bi_encoder(config), load_generator(config)
    if index is not None:
        config = pretrained.with_length_of_index(config, generator.tokenizer)
    if config.data.index is None:
        store = closed_book(bi_encoder.config.vector_width, generator.tokenizer)
    else:
        store = open_index(config.data.index, config, bi_encoder, generator)
    return Components(config, bi_encoder, generator, store)


def load_bi_encoder(config: Config) -> BiEncoder:
    """The bi-encoder, from one or two checkpoints. Input formats in the config override those of the checkpoints."""
    c = config.retriever
    question_lengths, passage_lengths = length_limits.question_lengths(config), length_limits.passage_lengths(config)
    checkpoint = hub.load_tower(c.tower)
    is_shared = c.passage_tower is None and checkpoint.side != "question"
    lengths = question_lengths | (passage_lengths if is_shared else {})
    checkpoint, tokenizer = checked_tower(config, c.tower, checkpoint, lengths)
    if c.passage_tower is None:
        encoder = passage_encoder(config, c.tower, checkpoint, tokenizer) if is_shared else None
        return _bi_encoder(c.tower, c.adapter, checkpoint, tokenizer, encoder)
    passage_tower = checked_tower(config, c.passage_tower, hub.load_tower(c.passage_tower), passage_lengths)
    width, question_width = passage_tower[0].config.vector_width, checkpoint.config.vector_width
    if width != question_width:
        widths = f"vectors of width {width}, the questions' of {question_width}"
        raise InputError(f"{c.passage_tower}: makes {widths}; give two towers that were trained together")
    encoder = passage_encoder(config, c.passage_tower, *passage_tower)
    return _bi_encoder(c.tower, c.adapter, checkpoint, tokenizer, encoder)


def _bi_encoder(
    source: str,
    adapter: str | None,
    checkpoint: hub.TowerCheckpoint,
    tokenizer: Tokenizer,
    encoder: TextEncoder | None,
) -> BiEncoder:
    """The bi-encoder; an adapter is the question tower's alone."""
    config, params, input_format = checkpoint.config, checkpoint.params, checkpoint.input_format
    if adapter is not None:
        params = adapters.load(adapter, params, loading.tower_modules(source))
    settings, side = checkpoint.tokenizer_settings, checkpoint.side
    return BiEncoder(config, params, tokenizer, input_format, source, encoder, settings, side)


def checked_tower(
    config: Config | ContrastiveConfig, source: str, checkpoint: hub.TowerCheckpoint, lengths: Mapping[str, int]
) -> tuple[hub.TowerCheckpoint, Tokenizer]:
    """A checkpoint with the config's changes applied, and its tokenizer."""
    c, tokenizer = config.retriever, checkpoint.tokenizer
    if tokenizer is None:
        raise InputError(f"{source}: holds no tokenizer; save one with it (tokenizer.json)")
    input_format = checkpoint.input_format.override(c.passage_template, c.question_template)
    for template in input_format.passage, input_format.question:
        if len(templates.split_at_special_tokens(template, tokenizer)) > 1:
            raise InputError(f'{source}: {template!r} spells a special token; leave it out ("pair" sets them)')
    limited = {key: min(tokens, input_format.max_length or tokens) for key, tokens in lengths.items()}
    length_limits.check_positions(source, checkpoint.config.max_positions, limited)
    length_limits.check_tokens(source, tokenizer, checkpoint.config.vocab_size)
    width = config.retriever.vector_width if isinstance(config, Config) else None  # Matryoshka trains whole vectors
    tower = vectors.with_vectors(checkpoint.config, source, c.vector_norm, width)
    networks.check_compute(config, tower, source, networks.DEFAULTS)
    return dataclasses.replace(checkpoint, config=tower, input_format=input_format), tokenizer


def passage_encoder(
    config: Config | ContrastiveConfig, source: str, checkpoint: hub.TowerCheckpoint, tokenizer: Tokenizer
) -> TextEncoder:
    """The passage tower of a checkpoint as `checked_tower` returned it, with its tokenizer."""
    max_passage, input_format, tower = config.retriever.max_passage, checkpoint.input_format, checkpoint.config
    max_length = min(max_passage, input_format.max_length or max_passage)
    network, template = registry.tower(tower), input_format.passage
    return TextEncoder(
        network,
        checkpoint.params,
        tokenizer,
        max_length,
        template,
        tower.vector_norm,
        source,
        cut_to=vectors.cut_to(tower),
        config=tower,
        tokenizer_settings=checkpoint.tokenizer_settings,
    )


def load_generator(
    config: Config, tokenizer: GeneratorTokenizer | None = None, corpus: list[Passage] | None = None
) -> GeneratorBundle:
    """The generator: a checkpoint, or random weights of the config's sizes.

    Args:
        tokenizer: saved by the run. None: the checkpoint's, the config's, or that of the run to start from; otherwise
            one is trained on the questions and the `corpus`.
    """
    c, checkpoint = config.generator, None
    if c.checkpoint:
        checkpoint = hub.load_generator(c.checkpoint)
        found = registry.generator_of(checkpoint.config).name
        if c.architecture not in (found, registry.DEFAULT_GENERATOR):
            problem = f"generator.architecture is {c.architecture}, and {c.checkpoint} is a {found}"
            raise InputError(f"{problem}; leave one of them out: generator.checkpoint None is from random weights")
        lengths = length_limits.generator_lengths(config, registry.generator_of(checkpoint.config))
        length_limits.check_positions(c.checkpoint, checkpoint.config.max_positions, lengths)
    tokenizer = tokenizer or _initial_tokenizer(config, checkpoint, corpus or [])
    source = c.checkpoint or "generator"
    settings = {} if checkpoint is None else checkpoint.tokenizer_settings
    network = networks.scratch_config(config, tokenizer.size) if checkpoint is None else checkpoint.config
    architecture = registry.generator_of(network)
    tokenizer = with_prompt(config, architecture, tokenizer, settings, source)
    if checkpoint is not None:
        length_limits.check_tokens(source, tokenizer.tokenizer, network.vocab_size)
    networks.check_compute(config, network, source)
    networks.check_fuses(config, network, source)
    params = architecture.init(network, jax.random.key(config.seed)) if checkpoint is None else checkpoint.params
    if checkpoint is not None and c.adapter is not None:
        params = adapters.load(c.adapter, params, loading.generator_modules(source))
    return GeneratorBundle(network, params, tokenizer, settings)


def _initial_tokenizer(
    config: Config, checkpoint: hub.GeneratorCheckpoint | None, corpus: list[Passage]
) -> GeneratorTokenizer:
    if checkpoint is not None:
        if checkpoint.tokenizer is None:
            raise InputError(f"{config.generator.checkpoint}: holds no tokenizer; save one with it (tokenizer.json)")
        architecture, source = registry.generator_of(checkpoint.config), str(config.generator.checkpoint)
        special = tokenizers.special_tokens(architecture, checkpoint.tokenizer_settings, source)
        return generator_tokenizer(checkpoint.tokenizer, source, special)
    special = networks.special_tokens(config)
    if config.generator.tokenizer:
        return pretrained.load_generator_tokenizer(config.generator.tokenizer, special)
    started = None if config.start_from is None else workdir_tokenizers.load_if_present(config.start_from, special)
    return started or _train_tokenizer(config, corpus)


def _train_tokenizer(config: Config, corpus: list[Passage]) -> GeneratorTokenizer:
    path = required_path(config.data.train, "data.train")
    questions = read_questions(path)
    check_targets(questions, path)
    texts = [f" {text}" for question in questions for text in (question.question, *question.answers)]
    texts += [f"{passage.title} / {passage.text}" for passage in corpus]
    return train_generator_tokenizer(texts, config.generator.vocabulary, networks.special_tokens(config))


def required_path(path: Path | None, name: str) -> Path:
    """A required path of the config."""
    if path is None:
        raise InputError(f"{name} is not given; name a question file")
    return path


def read_corpus(config: Config) -> list[Passage]:
    """The passages of the run's corpus, split to length; none for a closed book."""
    if config.data.passages is None:
        return []
    passages = list(read_passages(config.data.passages, config.data.passage_words))
    if not 1 <= config.retriever.num_docs <= len(passages):
        problem = f"retriever.num_docs is {config.retriever.num_docs}"
        raise InputError(f"{problem}, the index has {len(passages)} passages; give 1 to {len(passages)}")
    return passages


def _existing_store(
    config: Config, workdir: Path, corpus: list[Passage], bi_encoder: BiEncoder, generator: GeneratorBundle
) -> Store:
    """The run's knowledge store without passage tokens, or the corpus that it will be built from."""
    if config.data.is_closed_book:
        return closed_book(bi_encoder.config.vector_width, generator.tokenizer)
    folder = index_folder(config, workdir)
    if corpus and not (folder / manifest.FILE).exists():
        return without_vectors(corpus)
    store = open_index(folder, config, bi_encoder, generator, tokens=False)
    if config.retriever.train_passages and store.manifest is None:
        problem = "does not say which passage tower encoded it, as retriever.train_passages needs"
        raise InputError(f"{folder}: {problem}; build a store from its passages: rag-jax index")
    return check_corpus(corpus, store, folder, config.data.passages) if corpus else store


def index_folder(config: Config, workdir: Path) -> Path:
    """The folder of a run's index, which may not be there yet."""
    return config.data.index or workdir / "index"


def every_twentieth(total: int, report: Callable[[int, int], None]) -> Callable[[int], None]:
    """A counter that calls `report(done, total)` after every 5%."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        if 20 * (done - count) // total != 20 * done // total:
            report(done, total)

    return add
