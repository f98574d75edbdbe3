"""What each engine finds of questions whose passages are known: rag-jax benchmark retrieval --index D --questions F

Gold passages among the first k, and passages that contain an answer (DPR's token match), in percent; milliseconds for
all questions together, compiled beforehand.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rag_jax.commands.index import question_encoder
from rag_jax.config.command_line import parse
from rag_jax.data.questions import read_questions
from rag_jax.evaluation.evaluate import DEPTHS, recalls
from rag_jax.index.engines.engine import Queries
from rag_jax.index.placement import Placement
from rag_jax.index.store import open_store
from rag_jax.pipeline.gold_passages import check_gold
from rag_jax.pipeline.host_retrieval import open_engine


@dataclass(frozen=True)
class RetrievalBenchmark:
    """Recall of every engine of a store on questions."""

    index: Path
    questions: Path
    engines: tuple[str, ...] = ("device", "bm25", "hybrid")
    tower: str | None = None  # of the questions; None: that of the passages


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    remedy = "rag-jax benchmark retrieval --help lists all options"
    case = parse(RetrievalBenchmark, arguments, remedy=remedy, prog="rag-jax benchmark retrieval")
    store, questions = open_store(case.index, None, None), read_questions(case.questions)
    check_gold(store, questions, "questions")
    texts, encoder = [question.question for question in questions], question_encoder(store, case.tower)
    asked, depth = Queries(texts, encoder(texts)), min(DEPTHS[-1], len(store))
    columns = (*(f"gold@{k}" for k in DEPTHS), *(f"answer@{k}" for k in DEPTHS), "ms")
    table = Table("engine", *columns, box=None, pad_edge=False)
    for name in case.engines:
        engine = open_engine(name, store, Placement())
        engine.search(asked, depth)
        began = time.perf_counter()
        hits = engine.search(asked, depth)
        seconds = time.perf_counter() - began
        ranked = [[store.passages[row] for row in rows if row >= 0] for rows in hits.rows.tolist()]
        found = recalls(ranked, questions, depth)
        names = (f"{kind}@{k}" for kind in ("recall", "answer_recall") for k in DEPTHS)
        table.add_row(name, *(f"{100 * found[key]:.1f}" for key in names if key in found), f"{1e3 * seconds:.0f}")
    Console(width=120).print(table)
    print(f"{len(questions)} questions, {len(store)} passages, {depth} found for each")
