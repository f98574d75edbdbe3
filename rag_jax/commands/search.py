"""`rag-jax search`: what an engine finds in a knowledge store."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table

from rag_jax.commands.query_vectors import check_search, query_encoder
from rag_jax.config.command_line import check_counts, parse
from rag_jax.errors import InputError
from rag_jax.index.documents import find_rows
from rag_jax.index.engines import registry
from rag_jax.index.engines.engine import EngineResults, Queries
from rag_jax.index.placement import Placement, Precision
from rag_jax.index.store import Store, open_store
from rag_jax.pipeline.host_retrieval import open_engine
from rag_jax.terminal import Terminal, styled


@dataclass(frozen=True)
class SearchCommand:
    """Search a knowledge store for passages."""

    queries: tyro.conf.Positional[tuple[str, ...]]
    index: Path  # the store
    engine: registry.EngineName = "device"
    num_docs: int = 5  # K
    tower: str | None = None  # of the questions; None: the one that the index names, or that of the passages
    question_template: str | None = None  # what it reads: "query: {question}" or the like; None: as it says
    workdir: Path | None = None  # or the question tower that was trained there
    precision: Precision = "float32"  # of the vectors on the device
    exclude: tuple[str, ...] = ()  # ids of passages, or of documents with all their passages, not to be found

    def run(self) -> None:
        """Search and print."""
        if not self.queries or not all(query.strip() for query in self.queries):
            raise InputError('nothing to search for; write rag-jax search "QUERY" --index DIR')
        check_counts(num_docs=self.num_docs)
        check_search(self.engine, self.precision, self.tower, self.question_template, self.workdir)
        store = open_store(self.index, None, None)
        if self.num_docs > len(store):
            raise InputError(f"--num-docs is {self.num_docs}, {self.index} holds {len(store)}; give as many at most")
        engine = open_engine(self.engine, store, Placement(precision=self.precision))
        vectors = None
        if registry.ENGINES[self.engine].needs_vectors:
            vectors = query_encoder(store, self.tower, self.question_template, self.workdir)(self.queries)
        asked = Queries(self.queries, vectors)
        began = time.perf_counter()
        hits = engine.search(asked, self.num_docs, self._excluded(store))
        self._show(store, hits, time.perf_counter() - began)

    def _excluded(self, store: Store) -> np.ndarray | None:
        if not self.exclude:
            return None
        rows = find_rows(store.passages, store.alive, self.exclude, str(self.index))
        return np.repeat(rows[None, :].astype(np.int32), len(self.queries), axis=0)

    def _show(self, store: Store, hits: EngineResults, seconds: float) -> None:
        console = Terminal()
        for query, rows, scores in zip(self.queries, hits.rows.tolist(), hits.scores.tolist(), strict=True):
            console.print(styled(f"\n{query}", "bold"))
            table = Table("score", "id", "passage", box=None, pad_edge=False)
            table.columns[2].overflow = "fold"
            for row, score in zip(rows, scores, strict=True):
                if row >= 0:
                    passage = store.passages[row]
                    text = f"{passage.title} / {passage.text}" if passage.title else passage.text
                    table.add_row(f"{score:.4f}", passage.id, text)
            console.print(table)
        recall = "" if hits.recall is None else f", recall@{self.num_docs} {hits.recall:.3f} of the exact search's"
        summary = f"{self.engine}: {len(store):,} passages in {1e3 * seconds:.0f} ms, compilation included"
        console.print(f"\n{summary}{recall}", highlight=False, soft_wrap=True)


def search(arguments: Sequence[str]) -> None:
    """`rag-jax search`."""
    parse(SearchCommand, arguments, remedy="rag-jax search --help lists all options", prog="rag-jax search").run()
