"""`rag-jax evaluate`: scores of a model, a baseline or a file of predictions on questions with gold answers."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from rag_jax.commands.model import open_model, own_decoding, with_num_docs
from rag_jax.commands.resumable import write_rows
from rag_jax.config.command_line import check_counts, parse
from rag_jax.config.generation import GenerationConfig
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.question_formats.beir import BEIR
from rag_jax.data.questions import Question, fingerprint, read_question_file
from rag_jax.errors import InputError
from rag_jax.evaluation import calibration_figures, exports, predict, report, threshold
from rag_jax.evaluation.baselines import BASELINES
from rag_jax.evaluation.figures import new_figure
from rag_jax.evaluation.labels import Labels
from rag_jax.evaluation.predictions import (
    Prediction,
    prediction_lines,
    read_predictions,
    with_texts,
    without_itself,
)
from rag_jax.evaluation.report import Results
from rag_jax.evaluation.score_file import SCORES
from rag_jax.evaluation.scores import (
    Each,
    Scores,
    Task,
    abstention,
    check_texts,
    confidence,
    correct_answers,
    joined,
    probabilities,
    score,
)
from rag_jax.evaluation.threshold import PREDICTIONS
from rag_jax.index.store import Store, open_store
from rag_jax.pipeline import digests, user_inputs
from rag_jax.pipeline.generation import label_tokens
from rag_jax.pipeline.gold_passages import check_gold, with_known_evidence
from rag_jax.rag import RAG
from rag_jax.terminal import Terminal

BaselineName = Literal["closed-book", "bm25", "pretrained-tower", "random", "gold", "stuffing"]
MARKER = "rag-jax.evaluation"
FOR_MODELS = (
    *("closed_book", "baseline", "likelihood", "long_questions", "system_prompt", "num_docs", "token_posteriors"),
)  # options
FILES = (report.METRICS, SCORES, report.TABLE, *exports.FILES, *calibration_figures.FILES)


@dataclass(frozen=True)
class EvaluateCommand:
    """Score a model on questions with gold answers. If interrupted, rerun the same command to resume.

    OUTPUT receives predictions.jsonl, metrics.json, scores.jsonl and table.md, and for other evaluators run.trec,
    kilt.jsonl and dpr.json.
    """

    questions: Path  # in any of the field's formats: JSON lines, DPR, KILT, SQuAD, NQ-open, TriviaQA, BEIR, FlashRAG, …
    output: Path  # folder of the results
    workdir: Path | None = None  # of a training run
    checkpoint: str | None = None  # or a RAG checkpoint: a folder, or a repository of the hub[@revision]
    predictions: Path | None = None  # or a file of predictions: JSON lines with id and answer, KILT's, SQuAD's
    # a knowledge store, or for a model an index in another layout; None: the workdir's own
    index: Path | None = None
    closed_book: bool = False  # answer without passages, for a checkpoint without an index
    baseline: BaselineName | None = None  # the same program on other passages, or with another retriever
    task: Task = "qa"  # abstractive: also ROUGE-L, BLEU-1, distinct n-grams; question-generation: also Q-BLEU-1
    labels: tuple[str, ...] | None = None  # classification: choose the most likely of these; NAME, or NAME=TEXT
    likelihood: bool = False  # also log p of the gold answers, marginal over the answers and the passages
    long_questions: Literal["refuse", "cut"] | None = None  # policy for questions that are too long; None: the model's
    system_prompt: str | None = None  # a text, or guardrail, grounded, none; None: the model's own
    num_docs: int | None = None  # K, the passages to read; None: as in training
    depth: int = 100  # passages to retrieve, for recall, MRR, nDCG and MAP
    cite_at_least: float = 0.5  # posterior of a passage that counts as cited, at least
    abstain_below: float | None = None  # answer "" where log p(y|x) is lower
    calibrate_on: Path | None = None  # or where it is lower than is best on the evaluation in this folder
    figures: bool = False  # also draw reliability.png and risk_coverage.png
    token_posteriors: bool = False  # keep each token's posterior over the passages in predictions.jsonl
    seed: int = 0  # of samples and of random passages
    batch_size: int = 64
    decoding: tyro.conf.OmitArgPrefixes[GenerationConfig] = field(default_factory=GenerationConfig)
    default_decoding: tyro.conf.Suppress[GenerationConfig] = field(default_factory=GenerationConfig)  # the model's own

    def run(self) -> None:
        """Predict, score and write. Raises `InputError` for invalid input before anything is written."""
        self._check_options()
        format, questions = read_question_file(self.questions)
        self._check_questions(questions)
        self._folder.check(FILES)
        calibrated = None if self.calibrate_on is None else threshold.calibrated(self.calibrate_on, questions)
        is_beir = format == BEIR.name
        if self.predictions is None:
            rag = self._model(questions)
            predictions = self._predicted(rag, questions, self.depth + is_beir)
            measured, facts = self._likelihood(rag, questions), predict.model_facts(rag, self._asked)
            store = rag.components.store
        else:
            (predictions, store), measured, facts = self._given(questions), {}, {}
        evaluated_on = fingerprint(questions)
        if store is not None:
            questions = with_known_evidence(store, questions)
        if is_beir:
            depth = self.depth if self.predictions is None else None
            predictions = [without_itself(each, depth) for each in predictions]
        below = self.abstain_below if calibrated is None else calibrated.log_prob
        correct = correct_answers(questions, predictions, self.labels is not None)
        answered, scores = self._scored(questions, predictions, correct, below)
        facts |= {"abstain_below": below, "calibrated": None if calibrated is None else calibrated._asdict()}
        facts |= {"questions": len(questions), "format": format, "evaluated_on": evaluated_on}
        results = Results(self._named() | facts, questions, answered, joined([scores, Scores(measured)]))
        files = {name: text.encode() for name, text in self._texts(results, predictions).items()}
        self._write(files | self._drawn(predictions, correct))
        self._tell(results, format)

    def _check_options(self) -> None:
        check_counts(num_docs=self.num_docs, depth=self.depth, batch_size=self.batch_size)
        if sum(each is not None for each in (self.workdir, self.checkpoint, self.predictions)) != 1:
            raise InputError("name a --workdir, a --checkpoint or a file of --predictions, one of the three")
        if self.predictions is not None:
            self._check_without_model()
        if self.baseline == "pretrained-tower" and self.workdir is None:
            raise InputError(
                "--baseline pretrained-tower is the tower before training, which a checkpoint does not hold"
            )
        if self.abstain_below is not None and self.calibrate_on is not None:
            raise InputError("give the threshold, --abstain-below, or calibrate it, --calibrate-on, not both")
        if self.abstain_below is not None and not -math.inf < self.abstain_below <= 0:
            raise InputError(f"--abstain-below is {self.abstain_below}; give a log-probability in nats, at most 0")
        has_threshold = self.abstain_below is not None or self.calibrate_on is not None
        if self.labels is not None and (self.task != "qa" or has_threshold):
            raise InputError("labels are chosen, not generated; leave --task, --abstain-below and --calibrate-on out")
        if self.labels is not None and self.decoding != self.default_decoding:
            raise InputError("labels are chosen, not generated; leave the generation options out")
        if not 0 < self.cite_at_least <= 1:
            raise InputError(f"--cite-at-least is {self.cite_at_least}; give a posterior above 0, at most 1")
        user_inputs.seed(self.seed)
        if self.figures:
            new_figure()  # matplotlib may be missing

    def _check_without_model(self) -> None:
        """Raise `InputError` for options of a model beside a file of predictions."""
        default = EvaluateCommand(self.questions, self.output)
        for name in FOR_MODELS:
            if getattr(self, name) != getattr(default, name):
                raise InputError(f"--{name.replace('_', '-')} is for a model; leave it out beside --predictions")
        if self.decoding != self.default_decoding:
            raise InputError("generation options are for a model; leave them out beside --predictions")

    def _check_questions(self, questions: Sequence[Question]) -> None:
        """Raise `InputError` for questions that cannot be scored as asked."""
        if self._asked.labels:
            self._asked.labels.check(questions)
        if self.task != "qa":
            check_texts(questions, self.task)
        if self.figures or self.abstain_below is not None or self.calibrate_on is not None:
            without = next((question.id for question in questions if not question.answers), None)
            if without is not None:
                what = "--figures and thresholds are about right and wrong answers"
                raise InputError(f'{self.questions}: question "{without}" has no answers; {what}')

    def _model(self, questions: Sequence[Question]) -> RAG:
        """The model or its baseline, checked against the questions."""
        rag = open_model(
            self.workdir, self.checkpoint, self.index, self.closed_book, self.long_questions, self.system_prompt
        )
        if rag.components.store.is_closed_book and self.baseline is not None:
            raise InputError(f"{self.workdir or self.checkpoint}: reads no passages; leave --baseline out")
        rag = with_num_docs(rag, self.num_docs, self.workdir or self.checkpoint)
        if self.baseline is not None:
            rag = BASELINES[self.baseline](rag, questions, self.seed)
        rag.check(questions, self.decoding)
        if self._asked.labels:
            labels, tokenizer = self._asked.labels, rag.components.generator_tokenizer
            label_tokens(labels.texts, rag.components.limits, tokenizer)
            labels.decoded_names(tokenizer)
        check_gold(rag.components.store, questions, "questions")
        if rag.components.store.is_closed_book and not any(question.answers for question in questions):
            problem = "no gold answers, and a model that reads no passages: nothing can be scored"
            raise InputError(f"{self.questions}: {problem}; give questions with answers")
        return rag

    def _predicted(self, rag: RAG, questions: Sequence[Question], depth: int) -> list[Prediction]:
        """Append predictions to their file as they are computed; sort them into the questions' order at the end.

        Args:
            depth: passages to retrieve.
        """
        how = replace(self._asked, depth=depth)
        self._folder.claim()
        path, ids = self.output / PREDICTIONS, [question.id for question in questions]
        named = [[question.id, question.question, question.positive_ids] for question in questions]
        computed = asdict(replace(how, batch_size=1))  # whatever fits in memory: a run may go on with another
        asked = [named, self.baseline, rag.components.num_docs, computed]
        fingerprint = digests.answers_digest(rag.components, rag.params, asked)

        def rows(done: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            ranked = predict.rankings(rag, questions, how)
            return predict.prediction_rows(rag, questions, ranked, how, done)

        write_rows(path, fingerprint, ids, rows, doing="answering", of="questions", made="predictions")
        return with_texts(read_predictions(path, questions), rag.components.store)

    def _given(self, questions: Sequence[Question]) -> tuple[list[Prediction], Store | None]:
        """The predictions of a file; with an index, which is returned too, the texts of the passages found."""
        assert self.predictions is not None
        predictions = read_predictions(self.predictions, questions)
        if (self.abstain_below is not None or self.calibrate_on is not None) and probabilities(predictions) is None:
            raise InputError(f"{self.predictions}: some predictions have no log_prob; leave the threshold out")
        if labels := self._asked.labels:
            names = labels.names_of([each.answer for each in predictions])
            predictions = [each._replace(answer=name) for each, name in zip(predictions, names, strict=True)]
        if self.index is None:
            return predictions, None
        store = open_store(self.index, None, None)
        check_gold(store, questions, "questions")
        return with_texts(predictions, store), store

    def _likelihood(self, rag: RAG, questions: Sequence[Question]) -> Each:
        if not self.likelihood:
            return {}
        return {"gold_log_likelihood": predict.gold_log_likelihood(rag, questions, self._asked)}

    def _scored(
        self, questions: Sequence[Question], predictions: list[Prediction], correct: np.ndarray, below: float | None
    ) -> tuple[list[Prediction], Scores]:
        """The predictions, withheld where they are below the threshold, and their scores."""
        labels = self._asked.labels.names if self._asked.labels else ()
        how = {"task": self.task, "labels": labels, "depth": self.depth}
        scored = partial(score, questions, **how, cite_at_least=self.cite_at_least)
        if below is None:
            return predictions, scored(predictions)
        withheld, effect = abstention(questions, predictions, correct, below)
        return withheld, joined([scored(withheld), confidence(predictions, correct), Scores(effect)])

    def _named(self) -> dict[str, Any]:
        """What was asked for, for metrics.json."""
        source = self.workdir or self.checkpoint or self.predictions
        named = {"source": str(source), "baseline": self.baseline, "task": self.task, "labels": self.labels}
        named |= {"calibrate_on": None if self.calibrate_on is None else str(self.calibrate_on)}
        return named | {"cite_at_least": self.cite_at_least, "asked_depth": self.depth, "seed": self.seed}

    def _texts(self, results: Results, predictions: Sequence[Prediction]) -> dict[str, str]:
        """The contents of the files by name; predictions of a model are in theirs already."""
        texts = report.texts(results, has_labels=self.labels is not None)
        texts |= exports.of(results.questions, results.predictions)
        if self.predictions is not None:
            texts[PREDICTIONS] = "".join(prediction_lines(results.questions, predictions))
        return texts

    def _drawn(self, predictions: Sequence[Prediction], correct: np.ndarray) -> dict[str, bytes]:
        """The figures of calibration, where they are asked for."""
        if not self.figures:
            return {}
        p = probabilities(predictions)
        if p is None:
            raise InputError("some predictions have no log_prob, which --figures draws; leave it out")
        return calibration_figures.of(self.output.name, p, correct)

    def _write(self, files: Mapping[str, bytes]) -> None:
        self._folder.claim()
        self._folder.write(files, instead_of=FILES)

    def _tell(self, results: Results, format: str) -> None:
        """Print the figures, and where everything is."""
        console = Terminal()
        console.print(report.table(results.figures))
        console.print(f"\n{len(results.questions):,} questions ({format}).", highlight=False)
        console.print(f"Results: {self.output}", highlight=False, soft_wrap=True)

    @property
    def _folder(self) -> OwnFolder:
        return OwnFolder(self.output, MARKER, "evaluation", "choose another --output")

    @cached_property
    def _asked(self) -> predict.Asked:
        labels = None if self.labels is None else Labels.parse(self.labels)
        how = self.depth, self.token_posteriors, self.seed, self.batch_size
        return predict.Asked(labels, *how, None if self.predictions else self.decoding)


def evaluate(arguments: Sequence[str]) -> None:
    """`rag-jax evaluate`. Options that are not given default to the model's own config."""
    decoding = own_decoding(arguments)
    remedy = "rag-jax evaluate --help lists all options"
    default = EvaluateCommand(questions=tyro.MISSING, output=tyro.MISSING, decoding=decoding, default_decoding=decoding)
    parse(EvaluateCommand, arguments, remedy=remedy, prog="rag-jax evaluate", default=default).run()
