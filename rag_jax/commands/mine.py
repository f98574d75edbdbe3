"""`rag-jax mine`: hard negatives for training a retriever, from what an engine finds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from rag_jax.commands.progress import Progress
from rag_jax.commands.query_vectors import check_search, query_encoder
from rag_jax.config.command_line import parse
from rag_jax.contrastive import mining
from rag_jax.contrastive.mining import ANSWER, GOLD, MARGIN, SKIPPED, Mined, Rules
from rag_jax.data import outputs
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.index.engines import registry
from rag_jax.index.placement import Placement, Precision
from rag_jax.index.store import Store, open_store
from rag_jax.pipeline.gold_passages import check_gold
from rag_jax.pipeline.host_retrieval import open_engine
from rag_jax.terminal import Terminal


@dataclass(frozen=True)
class MineCommand:
    """Mine hard negatives: passages that are found for a question and are neither gold nor hold an answer."""

    questions: tyro.conf.Positional[Path]  # with their gold passages (positive_ids), in any of the field's formats
    index: Path  # the store to search
    output: Path  # a new file, .jsonl or .jsonl.gz
    engine: registry.EngineName = "bm25"
    tower: str | None = None  # of the questions; None: the one that the index names, or that of the passages
    question_template: str | None = None  # what it reads: "query: {question}" or the like; None: as it says
    workdir: Path | None = None  # or the question tower that was trained there
    precision: Precision = "float32"  # of the vectors on the device
    depth: int = 100  # passages of each ranking that are looked at
    negatives: int = 10  # to keep for each question, at most
    skip: int = 0  # first passages of each ranking to leave out, not counting gold ones
    margin: float | None = None  # keep only passages that score at least this much below the best gold passage
    relative_margin: float | None = None  # or only those with at most this part of its score: 0.95
    keep_answers: bool = False  # keep passages that hold an answer: where answers are yes, no or labels

    def run(self) -> None:
        """Mine and write. Raises `InputError` for invalid input before anything is written."""
        rules = Rules(self.depth, self.negatives, self.skip, self.margin, self.relative_margin, self.keep_answers)
        check_search(self.engine, self.precision, self.tower, self.question_template, self.workdir)
        outputs.check_new(self.output)
        questions = read_questions(self.questions)
        store = open_store(self.index, None, None)
        mining.check(questions, store, rules, self.questions)
        check_gold(store, questions, "questions")
        encode = None
        if registry.ENGINES[self.engine].needs_vectors:
            encode = query_encoder(store, self.tower, self.question_template, self.workdir)
        engine = open_engine(self.engine, store, Placement(precision=self.precision))
        counts: Counter[str] = Counter()
        with Progress("mining", len(questions), of="questions") as progress:
            mined = progress.counted(mining.mine(questions, store, engine, encode, rules))
            write_jsonl(self.output, self._lines(mined, store, counts))
        console = Terminal()
        console.print(summary(counts, rules), highlight=False, soft_wrap=True)
        console.print(f"Next: rag-jax train CONFIG --data.negatives {self.output}", highlight=False, soft_wrap=True)

    def _lines(self, mined: Iterable[Mined], store: Store, counts: Counter[str]) -> Iterator[dict[str, Any]]:
        """The lines of the file, counted; raises `InputError` if none of them holds a negative."""
        for each in mined:
            counts.update(each.dropped)
            counts.update({QUESTIONS: 1, KEPT: len(each.rows), SHORT: len(each.rows) < self.negatives})
            yield each.line(store)
        if not counts[KEPT]:
            remedy = "raise the depth, or loosen the rules: --skip, the margins, --keep-answers"
            raise InputError(f"no hard negatives for any of {counts[QUESTIONS]:,} questions; {remedy}")
        outputs.check_new(self.output)  # mining takes long: another command may have written it


QUESTIONS, KEPT, SHORT = "questions", "kept", "short"  # counted beside the reasons of `mining`
REASONS = {
    GOLD: "gold",
    SKIPPED: "skipped",
    ANSWER: "that hold an answer",
    MARGIN: "too close to the gold passage",
}


def summary(counts: Counter[str], rules: Rules) -> str:
    """What was mined, in two sentences."""
    questions = counts[QUESTIONS]
    dropped = ", ".join(f"{counts[reason]:,} {text}" for reason, text in REASONS.items() if counts[reason])
    found = f"{questions:,} questions with {counts[KEPT] / questions:.2f} hard negatives on average"
    fewer = f"Questions with fewer than {rules.negatives}: {counts[SHORT]:,}"
    return f"{found}; passages ranked before them and left out: {dropped or 'none'}. {fewer}."


def mine(arguments: Sequence[str]) -> None:
    """`rag-jax mine`."""
    parse(MineCommand, arguments, remedy="rag-jax mine --help lists all options", prog="rag-jax mine").run()
