"""`rag-jax index`: build an index from a corpus, update it, inspect it."""

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from rag_jax.commands.info import show
from rag_jax.commands.progress import Progress
from rag_jax.commands.query_vectors import load_question_tower, question_encoder
from rag_jax.config.command_line import check_counts, parse
from rag_jax.config.config import Config, Data, Retriever
from rag_jax.corpus import BadLines, OnBadLine, documents, raise_error, read_corpus
from rag_jax.corpus.chunking import Cut
from rag_jax.corpus.passage import Passage
from rag_jax.data import files
from rag_jax.data.lines import check_plain
from rag_jax.data.questions import read_question_texts
from rag_jax.errors import InputError, warn
from rag_jax.index import building, manifest, ownership, updates
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines import faiss_index, store_engines
from rag_jax.index.engines.store_engines import RecallQueries
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import Store, add_tokens, open_store
from rag_jax.index.workers import Lock, encode_in_processes
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.pipeline.passage_tokenizers import load_passage_tokenizer
from rag_jax.terminal import Terminal

console = Terminal(stderr=True)
BAD = "bad.log"  # in the index folder: the lines that --skip-bad left out
OTHER = {"generator": None}  # of two builds that differ in it alone
OF_BUILDS = (
    *("norm", "width", "max_length", "template", "dtype", "generator", "max_passage", "processes", "segment"),
)  # options that --change add and replace take from the index


@dataclass(frozen=True)
class IndexCommand:
    """Build an index from a corpus, update it, or inspect it. An interrupted build is resumed by the same command."""

    corpus: tyro.conf.Positional[Path | None] = None  # psgs_w100.tsv, JSON lines, KILT, text or Markdown, a dataset
    out: Path | None = None  # folder of the index
    change: Literal["build", "swap", "add", "replace"] = "build"  # what to do with an index that exists
    remove: tuple[str, ...] = ()  # ids of documents or passages to remove
    info: Path | None = None  # only describe this index
    check: Path | None = None  # only verify the checksums of this index
    tower: str | None = None  # passage tower: a folder, package:NAME/FOLDER, or a Hugging Face repository
    norm: float | None = None  # scale vectors to this length; None: as the tower returns them
    width: int | None = None  # keep the first so many components of vectors (Matryoshka); None: all
    max_length: int = 256  # tokens of a passage that the tower reads
    # input of the passage tower: a template such as "{title}. {text}", or pair: [CLS] title [SEP] text [SEP]; None: as
    # the checkpoint says
    template: str | None = None
    # tokenise for this generator, a checkpoint, a workdir, or a tokenizer.json; without a corpus: an index that exists
    generator: str | None = None
    max_passage: int | None = None  # tokens of a passage that the generator reads; None: a workdir's own, else 256
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of the vectors on disk
    cut: tyro.conf.OmitArgPrefixes[Cut] = field(default_factory=Cut)
    skip_bad: bool = False  # leave out invalid lines of the corpus; count and log them
    processes: int = 1  # processes that encode in parallel
    segment: int = (
        building.SEGMENT
    )  # passages per saved segment: the most that an interruption repeats, and that memory holds
    faiss: str | None = None  # also build a FAISS index, by factory string: Flat, HNSW32, "IVF1024,PQ64", SQ8
    bm25: bool = False  # also build a BM25 index
    precisions: tuple[Literal["bfloat16", "int8"], ...] = ()  # also measure recall of the search at lower precision
    questions: Path | None = None  # questions to measure recall with; None: passages of the index serve as queries
    question_tower: str | None = None  # tower that encodes the questions; None: the passage tower
    question_template: str | None = (
        None  # input of the question tower, such as "query: {question}"; None: as the checkpoint says
    )

    def run(self) -> None:
        """Run the command. Raises `InputError` for invalid input; the index is then unchanged."""
        self._check_options()
        folder = self.info or self.check
        if self.info is not None and self.check is not None:
            raise InputError("--info and --check name an index each; give one of them")
        if folder is not None:
            show(folder, verify=self.check is not None)
            return
        if self.out is None:
            raise InputError("name the folder of the store: --out DIR")
        if self.remove and self.corpus is not None:
            raise InputError("--remove and a CORPUS are two changes; run one command for each")
        self._check_further(self.out)
        if self.remove:
            updates.remove(self.out, self.remove)
        if self.corpus is not None:
            (self._build if self.change in ("build", "swap") else self._change)(self.corpus, self.out)
        elif self.generator is not None:
            self._add_tokens(self.generator, self.out)
        elif not (self.remove or self.faiss or self.bm25 or self.precisions):
            raise InputError("name a CORPUS to build from, or --info DIR to look at a store")
        self._engines(self.out)
        show(self.out)

    def _check_options(self) -> None:
        lengths = {"max_length": self.max_length, "max_passage": self.max_passage, "tokens": self.cut.tokens}
        check_counts(**lengths, segment=self.segment, processes=self.processes)
        if self.cut.words is not None and self.cut.tokens is not None:
            raise InputError("--words and --tokens are two lengths of a passage; give one of them")
        if self.change in ("build", "swap"):  # otherwise it depends on the index
            self.cut.chunker(None)
        if self.norm is not None and not 0 < self.norm < math.inf:
            raise InputError(f"--norm is {self.norm}; give a finite number above 0")
        for each in dataclasses.fields(self) if self.change in ("add", "replace") else ():
            if each.name in OF_BUILDS and getattr(self, each.name) != each.default:
                remedy = "give --generator in a run without a CORPUS" if each.name == "generator" else "leave it out"
                option = f"--{each.name.replace('_', '-')}"
                raise InputError(f"{option} is of a build; --change {self.change} encodes as the index was; {remedy}")
        for name in ("questions", "question_tower", "question_template"):
            if getattr(self, name) is not None and not (self.faiss or self.precisions):
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} is for the recall of --faiss or --precisions; name one, or leave it out")
        if self.questions is not None:
            read_question_texts(self.questions)

    def _check_further(self, out: Path) -> None:
        """Raise `InputError` if what is to follow a change of the index cannot be done."""
        is_changed = bool(self.remove) or (self.corpus is not None and self.change in ("add", "replace"))
        if is_changed and self.faiss:
            faiss_index.new_index(self.faiss, manifest.read(out).width)
        if is_changed and self.generator is not None:
            self._passage_tokenizer(self.generator)
        is_built = self.corpus is not None and not is_changed
        reader = self.question_tower or (self.tower if is_built else None)
        if self.questions is not None and reader is not None:
            load_question_tower(reader, self.norm, self.width, self.question_template)

    def loaded(self) -> tuple[TextEncoder, PassageTokenizer | None]:
        """Load the passage tower and the generator's tokenizer, in each process that encodes."""
        if self.tower is None:
            raise InputError("name the tower that reads the passages: --tower CHECKPOINT")
        passage_tokenizer = None if self.generator is None else self._passage_tokenizer(self.generator)
        encoder = load_encoder(self.tower, self.max_length, self.template, self.norm, self.width)
        return encoder, passage_tokenizer

    def _passage_tokenizer(self, generator: str) -> PassageTokenizer:
        return load_passage_tokenizer(generator, self.max_passage)

    def _build(self, corpus: Path, out: Path) -> None:
        ownership.check_available(out)
        encoder, passage_tokenizer = self.loaded()
        build_spec = building.make_build_spec(encoder, passage_tokenizer, self.dtype, self._facts(corpus, out))
        if self._is_built(out, build_spec):
            console.print(f"{out}: is built from this corpus with these options; nothing to do", soft_wrap=True)
            return
        width = encoder([""]).shape[1]
        if self.faiss:
            faiss_index.new_index(self.faiss, width)  # may be unknown
        with ownership.claim_and_lock(out) as lock:
            if self._is_built(out, build_spec):  # by another process in the meantime
                return
            with Progress("reading passages") as progress:
                passages = self._logged_passages(corpus, out, encoder)
                plan = building.read(out, passages, build_spec, self.segment, progress.advance)
            building.check_disk_space(out, plan, width, passage_tokenizer.row_bytes if passage_tokenizer else 0)
            with Progress("encoding passages", plan.passages, plan.encoded(out)) as progress:
                loaded = encoder, passage_tokenizer
                encode_in_processes(out, plan, self.loaded, loaded, self.processes, progress.advance, Lock(lock))
            former = manifest.read_if_there(out)
            building.commit(out, plan, encoder, passage_tokenizer)
        if former is not None and former.engines and not (self.faiss or self.bm25 or self.precisions):
            lost = ", ".join(sorted(former.engines))
            warn(f"{out}: the former store also had {lost}; --faiss, --bm25 and --precisions add that to this one")

    def _add_tokens(self, generator: str, out: Path) -> None:
        """Tokenise the passages of an existing index for another generator."""
        manifest.read(out)
        ownership.check_writable(out)
        if not add_tokens(out, self._passage_tokenizer(generator)):
            raise InputError(f"{out}: cannot be written, or is being built; wait for the build, or copy the store")

    def _is_built(self, out: Path, build_spec: dict[str, Any]) -> bool:
        """Whether this index exists already. Raises `InputError` for a different one, unless --change swap."""
        old = manifest.read_if_there(out)
        if old is None:
            return False
        if old.build_spec == build_spec and manifest.find_pending_build(out, old) is None:
            return True
        if self.change == "build":
            known = old.build_spec
            if self.generator and known and known != build_spec and known | OTHER == build_spec | OTHER:
                problem = "is built from this corpus, without the tokens of this generator"
                raise InputError(f"{out}: {problem}; leave the corpus out, and they are added")
            raise InputError(f"{out}: holds another store; add --change swap to put the new one in its place")
        return False

    def _change(self, corpus: Path, out: Path) -> None:
        """Add or replace passages, encoded by the tower that the index was built with."""
        found = manifest.read(out)
        tower, cut = found.tower, self.cut.over(found.cut)
        source = self.tower or tower["source"]
        encoder = load_encoder(source, tower["max_length"], tower["template"], tower["norm"], tower.get("cut_to"))
        with self._bad_lines(out) as on_bad_line:
            with Progress("reading passages") as progress:
                passages = list(progress.counted(self._passages(corpus, encoder, cut, on_bad_line)))
            with Progress("encoding passages", len(passages)) as progress:
                (updates.add if self.change == "add" else updates.replace)(out, passages, encoder, progress.advance)

    def _passages(self, corpus: Path, encoder: TextEncoder, cut: Cut, on_bad_line: OnBadLine) -> Iterator[Passage]:
        return read_corpus(corpus, cut.chunker(encoder.tokenizer), on_bad_line, own_ids=self.change == "replace")

    def _logged_passages(self, corpus: Path, out: Path, encoder: TextEncoder) -> Iterator[Passage]:
        """The passages; the list of bad lines is written once all are read, which a resumed build does not do again."""
        with self._bad_lines(out) as on_bad_line:
            yield from self._passages(corpus, encoder, self.cut, on_bad_line)

    @contextmanager
    def _bad_lines(self, out: Path) -> Iterator[OnBadLine]:
        """What to do with invalid lines: refuse them, or count them and log them, when all has gone well."""
        if not self.skip_bad:
            yield raise_error
            return
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            former = out / BAD
            if self.change in ("add", "replace") and former.is_file() and not former.is_symlink():
                file.write(former.read_text(encoding="utf-8"))  # what was left out before is left out still
            bad = BadLines(file.write)
            yield bad
            file.seek(0)
            files.replace_file(out / BAD, file)
        console.print(f"{bad.count} bad lines left out; they are in {out / BAD}", soft_wrap=True)

    def _facts(self, corpus: Path, out: Path) -> dict[str, Any]:
        return {"content": _content(corpus, out), "cut": self.cut.spec, "skip_bad": self.skip_bad}

    def _engines(self, out: Path) -> None:
        """Build and measure the requested engines."""
        asked = (self.faiss, self.bm25, *self.precisions)
        if not any(asked):
            return
        store = open_store(out, None, None)
        queries = self._queries(store)
        if self.faiss:
            store_engines.add_faiss(store, self.faiss, queries)
        if self.bm25:
            store_engines.add_bm25(store)
        for precision in self.precisions:
            store_engines.measure_precision(store, precision, queries)

    def _queries(self, store: Store) -> RecallQueries:
        if self.questions is None:
            return store_engines.passage_queries(store)
        encode = question_encoder(store, self.question_tower, self.question_template)
        return RecallQueries(encode([text for _, text in read_question_texts(self.questions)]), None)


def index(arguments: Sequence[str]) -> None:
    """`rag-jax index`."""
    parse(IndexCommand, arguments, remedy="rag-jax index --help lists all options", prog="rag-jax index").run()


def load_encoder(
    source: str, max_length: int, template: str | None, norm: float | None, width: int | None = None
) -> TextEncoder:
    """Load a passage tower; `template` overrides its own. Raises `InputError` for a question tower."""
    tower = Retriever(
        source,
        vector_norm=norm,
        vector_width=width,
        max_question=1,
        max_passage=max_length,
        passage_template=template,
    )
    return load_bi_encoder(Config(Data(), tower)).required_passage_encoder


def _content(corpus: Path, out: Path) -> str:
    """A digest of the contents of a corpus, independent of its path; without hidden files, and an index inside it."""
    if not corpus.exists():
        raise InputError(f"{corpus}: no such file or folder; check the path")
    if not corpus.is_dir():
        check_plain(corpus)
    index = out.resolve()
    held = sorted(documents.files_in(corpus, lambda name: True)) if corpus.is_dir() else [corpus]
    held = [file for file in held if not file.resolve().is_relative_to(index)]
    # the name of a single document is its id and title; that of any other file says nothing
    names = {corpus: corpus.name if documents.is_document(corpus.name) else "."}
    digests = [(names.get(file) or str(file.relative_to(corpus)), files.checksum(file)) for file in held]
    return hashlib.sha256(repr(digests).encode()).hexdigest()
