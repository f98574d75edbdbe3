"""From a config to the parts of a run: networks and their first parameters, tokenizers, the knowledge store."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from tokenizers import Tokenizer

from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data import templates, validation
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer, train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.index import manifest, pending_build
from rag_jax.index.building import build
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.importers import import_index
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import Store, closed_book, from_vectors, open_store, without_vectors
from rag_jax.models import registry
from rag_jax.pipeline import kept_tokenizers, lengths, networks
from rag_jax.pipeline.components import BiEncoder, Components, GeneratorBundle
from rag_jax.pipeline.pretrained import read_words


def assemble(config: Config, workdir: Path) -> Components:
    """Everything that a run's `config` names and its workdir keeps, opened, checked and put together.

    Raises `InputError` for whatever is missing or does not fit.
    """
    words, components = kept_tokenizers.kept(workdir, networks.special_tokens(config)), prepare(config, workdir, [])
    kept_tokenizers.check(components.bi_encoder, words, workdir)
    return open_components(components, workdir)


def prepare(config: Config, workdir: Path, corpus: list[Passage]) -> Components:
    """The parts of a run as far as nothing has to be written for them: what cannot be used is found here.

    The generator's vocabulary is learnt where there is none yet. A store that is there holds no tokens; one that is
    still to be built of a corpus (`read_corpus`) holds its passages only. `opened` completes it. Raises `InputError`
    for whatever is missing or does not fit.
    """
    towers, kept = read_bi_encoder(config), kept_tokenizers.read(workdir, networks.special_tokens(config))
    reader = read_generator(config, kept, corpus)
    return Components(config, towers, reader, _found(config, workdir, corpus, towers, reader))


def open_components(
    components: Components, workdir: Path, encoded: Callable[[int, int], None] = lambda done, of: None
) -> Components:
    """The parts of a run with their store as training reads it, built or tokenised on first use.

    `encoded` hears how many passages have their vectors after each twentieth of them. Raises `InputError` for what
    cannot be written.
    """
    if not components.store.has_no_tokens:
        return components
    folder = _folder(components.config, workdir)
    if components.store.manifest is not None:
        store = open_index(folder, components.config, components.bi_encoder, components.generator)
    else:
        corpus = list(components.store.passages)
        store = build(
            folder,
            corpus,
            components.bi_encoder.required_passage_encoder,
            components.passage_tokenizer,
            _by_twentieths(len(corpus), encoded),
        )
        store = _holding(corpus, store, folder, components.config)  # unless it was begun before, of another corpus
    return dataclasses.replace(components, store=store)


def compose(config: Config) -> Components:
    """A config's towers and generator around its index, which exists in any layout; closed book without one.

    Raises `InputError` for whatever is missing or does not fit.
    """
    validation.validate_dataclass(Config, config)
    towers, reader = read_bi_encoder(config), read_generator(config)
    if config.data.index is None:
        return Components(config, towers, reader, closed_book(towers.config.vector_width, reader.tokenizer))
    return Components(config, towers, reader, open_index(config.data.index, config, towers, reader))


def read_bi_encoder(config: Config) -> BiEncoder:
    """The bi-encoder's checkpoints, fed as they say unless the config says otherwise."""
    c = config.retriever
    found = hub.load_tower(c.tower)
    reads_both = c.passage_tower is None and found.side != "question"
    asked = lengths.question(config) | (lengths.passage(config) if reads_both else {})
    found, tokenizer = _checked_tower(config, c.tower, found, asked)
    if c.passage_tower is None:
        encoder = _encoder(config, c.tower, found, tokenizer) if reads_both else None
        return _towers(c.tower, found, tokenizer, encoder)
    passages = hub.load_tower(c.passage_tower)
    passages, passage_tokenizer = _checked_tower(config, c.passage_tower, passages, lengths.passage(config))
    if passages.config.vector_width != found.config.vector_width:
        widths = f"vectors of width {passages.config.vector_width}, the questions' of {found.config.vector_width}"
        raise InputError(f"{c.passage_tower}: makes {widths}; give two towers that were trained together")
    encoder = _encoder(config, c.passage_tower, passages, passage_tokenizer)
    return _towers(c.tower, found, tokenizer, encoder)


def _towers(source: str, found: hub.TowerCheckpoint, tokenizer: Tokenizer, encoder: TextEncoder | None) -> BiEncoder:
    settings = found.tokenizer_settings
    return BiEncoder(found.config, found.params, tokenizer, found.input_format, source, encoder, settings)


def _checked_tower(
    config: Config, source: str, found: hub.TowerCheckpoint, asked: Mapping[str, int]
) -> tuple[hub.TowerCheckpoint, Tokenizer]:
    """A checkpoint with what the config changes of it, and its tokenizer."""
    c = config.retriever
    if found.tokenizer is None:
        raise InputError(f"{source}: holds no tokenizer; save one with it (tokenizer.json)")
    convention = found.input_format.override(c.passage_template, c.question_template)
    for template in convention.passage, convention.question:
        if len(templates.split_at_special_tokens(template, found.tokenizer)) > 1:
            raise InputError(f'{source}: {template!r} spells a special token; leave it out ("pair" sets them)')
    read = {key: min(tokens, convention.max_length or tokens) for key, tokens in asked.items()}
    lengths.check_positions(source, found.config.max_positions, read)
    lengths.check_tokens(source, found.tokenizer, found.config.vocab_size)
    norm = found.config.vector_norm if c.vector_norm is None else c.vector_norm
    sizes = dataclasses.replace(found.config, vector_norm=norm)
    networks.check_compute(config, sizes, source)
    return dataclasses.replace(found, config=sizes, input_format=convention), found.tokenizer


def _encoder(config: Config, source: str, found: hub.TowerCheckpoint, tokenizer: Tokenizer) -> TextEncoder:
    wanted, convention, network = config.retriever.max_passage, found.input_format, registry.tower(found.config)
    max_length, norm = min(wanted, convention.max_length or wanted), found.config.vector_norm
    return TextEncoder(network, found.params, tokenizer, max_length, convention.passage, norm, source)


def read_generator(
    config: Config, kept: GeneratorTokenizer | None = None, corpus: list[Passage] | None = None
) -> GeneratorBundle:
    """The generator: a checkpoint, or random weights of the config's sizes.

    Its tokenizer is the one `kept` by the run; at first the checkpoint's, or the given one, or that of the run that
    this one starts from, or one learnt from the run's own texts.
    """
    wanted, found = config.generator, None
    if wanted.checkpoint:
        found = hub.load_generator(wanted.checkpoint)
        lengths.check_positions(wanted.checkpoint, found.config.max_positions, lengths.inputs(config))
    words = _worded(config, _vocabulary(config, found, kept, corpus or []))
    if found is not None:
        lengths.check_tokens(str(wanted.checkpoint), words.tokenizer, found.config.vocab_size)
        networks.check_compute(config, found.config, str(wanted.checkpoint))
        return GeneratorBundle(found.config, found.params, words, found.tokenizer_settings)
    sizes = networks.from_scratch(config, words.size)
    networks.check_compute(config, sizes, "generator")
    return GeneratorBundle(sizes, registry.generator_of(sizes).init(sizes, jax.random.key(config.seed)), words)


def _vocabulary(
    config: Config, found: hub.GeneratorCheckpoint | None, kept: GeneratorTokenizer | None, corpus: list[Passage]
) -> GeneratorTokenizer:
    if kept is not None:
        return kept
    if found is not None:
        if found.tokenizer is None:
            raise InputError(f"{config.generator.checkpoint}: holds no tokenizer; save one with it (tokenizer.json)")
        special = registry.generator_of(found.config).special_tokens
        return generator_tokenizer(found.tokenizer, str(config.generator.checkpoint), special)
    special = networks.special_tokens(config)
    if config.generator.tokenizer:
        return read_words(config.generator.tokenizer, special)
    started = None if config.start_from is None else kept_tokenizers.read(config.start_from, special)
    return started or _learn(config, corpus)


def _worded(config: Config, words: GeneratorTokenizer) -> GeneratorTokenizer:
    c = config.generator
    return words._replace(passage_template=c.passage_template, question_template=c.question_template)


def _learn(config: Config, corpus: list[Passage]) -> GeneratorTokenizer:
    questions = read_questions(required(config.data.train, "data.train"))
    texts = [f" {text}" for question in questions for text in (question.question, *question.answers)]
    texts += [f"{passage.title} / {passage.text}" for passage in corpus]
    return train_generator_tokenizer(texts, config.generator.vocabulary, networks.special_tokens(config))


def required(path: Path | None, name: str) -> Path:
    """A file that the config must name."""
    if path is None:
        raise InputError(f"{name} is not given; name a question file")
    return path


def read_corpus(config: Config) -> list[Passage]:
    """The passages that the run is about, cut to length; none for a closed book."""
    if config.data.passages is None:
        return []
    passages = list(read_passages(config.data.passages, config.data.passage_words))
    if not 1 <= config.retriever.num_docs <= len(passages):
        wanted = f"retriever.num_docs is {config.retriever.num_docs}"
        raise InputError(f"{wanted}, the index has {len(passages)} passages; give 1 to {len(passages)}")
    return passages


def _found(config: Config, workdir: Path, corpus: list[Passage], towers: BiEncoder, reader: GeneratorBundle) -> Store:
    """The run's knowledge store as it is, without tokens, or the corpus that it is to be built of."""
    if config.data.is_closed_book:
        return closed_book(towers.config.vector_width, reader.tokenizer)
    folder = _folder(config, workdir)
    if corpus and not (folder / manifest.FILE).exists():
        return without_vectors(corpus)
    store = open_index(folder, config, towers, reader, tokens=False)
    return _holding(corpus, store, folder, config) if corpus else store


def _holding(corpus: Sequence[Passage], store: Store, folder: Path, config: Config) -> Store:
    """The store, if it holds the corpus and nothing else."""
    if len(corpus) != len(store) or any(a != b for a, b in zip(store.live_passages(), corpus, strict=True)):
        raise InputError(f"{folder}: holds other passages than {config.data.passages}; name another data.index")
    return store


def _folder(config: Config, workdir: Path) -> Path:
    return config.data.index or workdir / "index"


def _by_twentieths(count: int, encoded: Callable[[int, int], None]) -> Callable[[int], None]:
    """Tells how many of `count` are done, after each twentieth of them."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if 20 * (done - more) // count != 20 * done // count:
            encoded(done, count)

    return tell


def check_width(store: Store, towers: BiEncoder, where: str) -> Store:
    """The store, if its vectors are as wide as the question tower's."""
    width, wanted = store.width, towers.config.vector_width
    if width != wanted:
        raise InputError(f"{where}: vectors of width {width}, the question tower's have {wanted}; take its own index")
    return store


def open_index(path: Path, config: Config, towers: BiEncoder, reader: GeneratorBundle, tokens: bool = True) -> Store:
    """An index that exists: a store of this library, or one in a layout that `rag_jax.index.importers` reads.

    Without `tokens` nothing is written into a store whose passages this generator has not read yet.
    """
    passage_tokenizer = PassageTokenizer(reader.tokenizer, config.generator.max_passage)
    if (path / manifest.FILE).exists() or (path / pending_build.FILE).exists() or not path.exists():
        return check_width(
            open_store(path, towers.passage_encoder, passage_tokenizer if tokens else None), towers, str(path)
        )
    found = import_index(path, towers.config.vector_width)
    store = from_vectors(found.passages, found.vectors, passage_tokenizer)
    store.truncated.warn("generator", passage_tokenizer.max_length)
    return store
