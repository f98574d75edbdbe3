"""From a config to the parts of a run: networks and their first parameters, tokenizers, the knowledge store."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from tokenizers import Tokenizer

from rag_jax import hub
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import Vocabulary, read_vocabulary, train_vocabulary, vocabulary
from rag_jax.errors import InputError
from rag_jax.knowledge import manifest, unfinished
from rag_jax.knowledge.building import build
from rag_jax.knowledge.encoder import Encoder
from rag_jax.knowledge.existing import read_existing
from rag_jax.knowledge.passages import Passage, read_passages, split_passages
from rag_jax.knowledge.reads import Reads
from rag_jax.knowledge.store import Store, closed_book, from_vectors, open_store
from rag_jax.models import bart, bert
from rag_jax.run import lengths
from rag_jax.run.config import Config
from rag_jax.run.parts import Parts, Reader, Towers
from rag_jax.run.pretrained import read_words
from rag_jax.types import Params


def assemble(
    config: Config,
    workdir: Path,
    corpus: list[Passage] | None = None,
    encoded: Callable[[int, int], None] = lambda done, of: None,
) -> Parts:
    """Everything that a run's `config` names, opened, checked and put together.

    With a corpus (`read_corpus`), the generator's vocabulary and the knowledge store are made on first use, and
    `encoded` hears how many passages have their vectors after each twentieth of them. Without one they must be there.
    Raises `InputError` for whatever is missing or does not fit.
    """
    towers, reader = read_towers(config), read_reader(config, workdir / "tokenizer.json", corpus or [])
    kept = workdir / "tokenizer.json"
    if not kept.exists() and jax.process_index() == 0:
        reader.vocabulary.tokenizer.save(str(kept))
    return Parts(config, towers, reader, _store(config, workdir, corpus, towers, reader, encoded))


def compose(config: Config) -> Parts:
    """A config's towers and generator around its index, which exists in any layout; closed book without one.

    Raises `InputError` for whatever is missing or does not fit.
    """
    towers, reader = read_towers(config), read_reader(config)
    if config.data.index is None:
        return Parts(config, towers, reader, closed_book(towers.config.vector_width, reader.vocabulary))
    return Parts(config, towers, reader, open_index(config.data.index, config, towers, reader))


def read_towers(config: Config) -> Towers:
    """The bi-encoder's checkpoints."""
    c = config.retriever
    found = hub.load_tower(c.tower)
    reads_both = c.passage_tower is None and found.side != "question"
    asked = lengths.question(config) | (lengths.passage(config) if reads_both else {})
    tower_config, tokenizer = _checked_tower(config, c.tower, found, asked)
    if c.passage_tower is None:
        encoder = None if found.side == "question" else _encoder(config, c.tower, tower_config, found.params, tokenizer)
        return Towers(tower_config, found.params, tokenizer, c.tower, encoder, found.tokenizer_settings)
    passages = hub.load_tower(c.passage_tower)
    passage_config, passage_tokenizer = _checked_tower(config, c.passage_tower, passages, lengths.passage(config))
    if passage_config.vector_width != tower_config.vector_width:
        widths = f"vectors of width {passage_config.vector_width}, the questions' of {tower_config.vector_width}"
        raise InputError(f"{c.passage_tower}: makes {widths}; give two towers that were trained together")
    encoder = _encoder(config, c.passage_tower, passage_config, passages.params, passage_tokenizer)
    return Towers(tower_config, found.params, tokenizer, c.tower, encoder, found.tokenizer_settings)


def _checked_tower(
    config: Config, source: str, found: hub.TowerCheckpoint, asked: Mapping[str, int]
) -> tuple[bert.BertConfig, Tokenizer]:
    if found.tokenizer is None:
        raise InputError(f"{source}: holds no tokenizer; save one with it (tokenizer.json)")
    lengths.check_positions(source, found.config.max_positions, asked)
    lengths.check_tokens(source, found.tokenizer, found.config.vocab_size)
    norm = config.retriever.vector_norm
    return (found.config if norm is None else dataclasses.replace(found.config, vector_norm=norm)), found.tokenizer


def _encoder(config: Config, source: str, tower: bert.BertConfig, params: Params, tokenizer: Tokenizer) -> Encoder:
    c, network = config.retriever, bert.tower(tower)
    return Encoder(network, params, tokenizer, c.max_passage, c.passage_template, tower.vector_norm, source)


def read_reader(config: Config, kept: Path | None = None, corpus: list[Passage] | None = None) -> Reader:
    """The generator: a checkpoint, or random weights of the config's sizes.

    Its tokenizer is the one `kept` by the run; at first the checkpoint's, or the given one, or one learnt from the
    run's own texts.
    """
    wanted, found = config.generator, None
    if wanted.checkpoint:
        found = hub.load_generator(wanted.checkpoint)
        lengths.check_positions(wanted.checkpoint, found.config.max_positions, lengths.inputs(config))
    words = _worded(config, _vocabulary(config, found, kept, corpus or []))
    if found is not None:
        lengths.check_tokens(str(wanted.checkpoint), words.tokenizer, found.config.vocab_size)
        return Reader(found.config, found.params, words, found.tokenizer_settings)
    sizes = bart.BartConfig(
        vocab_size=words.size,
        width=wanted.width,
        encoder_layers=wanted.encoder_layers,
        decoder_layers=wanted.decoder_layers,
        heads=wanted.heads,
        ffn_width=wanted.ffn_width,
        max_positions=max(wanted.max_input, wanted.max_target),
        dropout=wanted.dropout,
        init_std=wanted.init_std,
    )
    return Reader(sizes, bart.init(sizes, jax.random.key(config.seed)), words)


def _vocabulary(
    config: Config, found: hub.GeneratorCheckpoint | None, kept: Path | None, corpus: list[Passage]
) -> Vocabulary:
    if kept is not None and kept.exists():
        return read_vocabulary(kept)
    if found is not None:
        if found.tokenizer is None:
            raise InputError(f"{config.generator.checkpoint}: holds no tokenizer; save one with it (tokenizer.json)")
        return vocabulary(found.tokenizer, str(config.generator.checkpoint))
    return read_words(config.generator.tokenizer) if config.generator.tokenizer else _learn(config, corpus)


def _worded(config: Config, words: Vocabulary) -> Vocabulary:
    c = config.generator
    return words._replace(passage_template=c.passage_template, question_template=c.question_template)


def _learn(config: Config, corpus: list[Passage]) -> Vocabulary:
    questions = read_questions(required(config.data.train, "data.train"))
    texts = [f" {text}" for question in questions for text in (question.question, *question.answers)]
    texts += [f"{passage.title} / {passage.text}" for passage in corpus]
    return train_vocabulary(texts, config.generator.vocabulary)


def required(path: Path | None, name: str) -> Path:
    """A file that the config must name."""
    if path is None:
        raise InputError(f"{name} is not given; name a question file")
    return path


def read_corpus(config: Config) -> list[Passage]:
    """The passages that the run is about, cut to length; none for a closed book."""
    if config.data.passages is None:
        return []
    passages = list(split_passages(read_passages(config.data.passages), config.data.passage_words))
    if not 1 <= config.retriever.num_docs <= len(passages):
        wanted = f"retriever.num_docs is {config.retriever.num_docs}"
        raise InputError(f"{wanted}, the index has {len(passages)} passages; give 1 to {len(passages)}")
    return passages


def _store(
    config: Config,
    workdir: Path,
    corpus: list[Passage] | None,
    towers: Towers,
    reader: Reader,
    encoded: Callable[[int, int], None],
) -> Store:
    """The run's knowledge store, built from the corpus where it is missing."""
    if config.data.is_closed_book:
        return closed_book(towers.config.vector_width, reader.vocabulary)
    folder, reads = config.data.index or workdir / "index", Reads(reader.vocabulary, config.generator.max_passage)
    if not corpus or (folder / manifest.FILE).exists():
        store = open_index(folder, config, towers, reader)
        if corpus and store.passages != corpus:
            raise InputError(f"{folder}: holds other passages than {config.data.passages}; name another data.index")
        return store
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if 20 * (done - count) // len(corpus) != 20 * done // len(corpus):
            encoded(done, len(corpus))

    return build(folder, corpus, towers.encoder, reads, tell)


def fitting(store: Store, towers: Towers, where: str) -> Store:
    """The store, if its vectors are as wide as the question tower's."""
    width, wanted = store.width, towers.config.vector_width
    if width != wanted:
        raise InputError(f"{where}: vectors of width {width}, the question tower's have {wanted}; take its own index")
    return store


def open_index(path: Path, config: Config, towers: Towers, reader: Reader) -> Store:
    """An index that exists: a store of this library, or one in a layout that `rag_jax.knowledge.existing` reads."""
    reads = Reads(reader.vocabulary, config.generator.max_passage)
    if (path / manifest.FILE).exists() or (path / unfinished.FILE).exists() or not path.exists():
        return fitting(open_store(path, towers.passages, reads), towers, str(path))
    found = read_existing(path, towers.config.vector_width)
    return from_vectors(found.passages, found.vectors, reads)
