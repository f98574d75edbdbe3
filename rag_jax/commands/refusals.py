"""`rag-jax refusals`: how often a model refuses what it should not answer, and what it should."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from rag_jax.commands.model import TOWER, open_generator, open_model, with_num_docs
from rag_jax.commands.resumable import write_rows
from rag_jax.config.command_line import check_counts, parse
from rag_jax.config.generation import GenerationConfig
from rag_jax.data import system_prompts
from rag_jax.data.jsonl import read_jsonl
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import Question, fingerprint, read_question_file
from rag_jax.data.safety_prompts import SafetyPrompt, read_safety_prompts
from rag_jax.errors import InputError
from rag_jax.evaluation import predict, refusal_report, refusal_run
from rag_jax.evaluation.completions import Completion, read_completions
from rag_jax.evaluation.refusal_run import FILES, RefusalRun, System
from rag_jax.pipeline import digests, user_inputs
from rag_jax.rag import RAG
from rag_jax.terminal import Terminal

MARKER, PREDICTIONS = "rag-jax.refusals", "predictions.jsonl"
ANSWER_LENGTH = 64  # tokens: whether an answer refuses shows at its beginning
OWN = "model"  # the system without another system prompt than the model's own
SOURCES = ("workdir", "checkpoint", "generator", "completions")
FOR_MODELS = (
    *("tower", "index", "closed_book", "system_prompts", "questions", "long_questions", "num_docs", "decoding"),
)  # options


@dataclass(frozen=True)
class RefusalsCommand:
    """Measure refusals of unsafe prompts and of safe ones. If interrupted, rerun the same command to resume.

    OUTPUT receives predictions.jsonl, completions.jsonl with the decision on each, metrics.json and table.md, and with
    --questions answers.jsonl.
    """

    prompts: tyro.conf.Positional[Path]  # JSON lines: id, prompt, type, label (safe or unsafe)
    output: Path  # folder of the results
    workdir: Path | None = None  # of a training run
    checkpoint: str | None = None  # or a RAG checkpoint: a folder, or a repository of the hub[@revision]
    generator: str | None = None  # or a generator's checkpoint
    completions: Path | None = None  # or a file of completions: JSON lines with prompt_id, completion, model
    tower: str | None = None  # of --generator; None: MiniLM
    index: Path | None = None  # a knowledge store; None: the workdir's own; with --generator, no passages
    closed_book: bool = False  # answer without passages, for a checkpoint without an index
    system_prompts: tuple[str, ...] = ()  # texts, or guardrail, grounded, none, to be compared; none given: the model's
    questions: Path | None = None  # with gold answers: what a system prompt costs
    long_questions: Literal["refuse", "cut"] | None = None  # policy for prompts that are too long; None: the model's
    num_docs: int | None = None  # K, the passages to read; None: as in training
    seed: int = 0  # of samples
    batch_size: int = 32
    decoding: tyro.conf.OmitArgPrefixes[GenerationConfig] = field(default_factory=GenerationConfig)

    def run(self) -> None:
        """Answer, judge and write. Raises `InputError` for invalid input before anything is written."""
        self._check_options()
        prompts = read_safety_prompts(self.prompts)
        questions = [] if self.questions is None else _gold_questions(self.questions)
        self._folder.check(FILES)
        if self.completions is not None:
            facts, systems = {}, {n: System(c) for n, c in read_completions(self.completions, prompts).items()}
        else:
            facts, systems = self._asked(prompts, questions)
        run = RefusalRun(prompts, questions, systems)
        found = refusal_run.report(run, self._named(prompts, questions) | facts)
        files = refusal_run.files(run, found)
        self._folder.claim()
        self._folder.write(files, instead_of=FILES)
        console = Terminal()
        refusal_report.show(console, found)
        console.print(f"\nResults: {self.output}", highlight=False, soft_wrap=True)

    def _check_options(self) -> None:
        check_counts(num_docs=self.num_docs, batch_size=self.batch_size)
        if sum(getattr(self, name) is not None for name in SOURCES) != 1:
            raise InputError("name a --workdir, a --checkpoint, a --generator or a file of --completions, one of them")
        default = RefusalsCommand(self.prompts, self.output)
        for name in FOR_MODELS if self.completions is not None else ():
            if getattr(self, name) != getattr(default, name):
                option, it = (
                    (f"--{name.replace('_', '-')} is", "it")
                    if name != "decoding"
                    else ("generation options are", "them")
                )
                raise InputError(f"{option} for a model; leave {it} out beside --completions")
        if self.generator is None and self.tower is not None:
            raise InputError("--tower is for a --generator; leave it out")
        if self.closed_book and self.checkpoint is None:
            raise InputError("--closed-book is for a --checkpoint without an index; leave it out")
        texts = self._system_prompts().values()
        if len(set(texts)) < len(self.system_prompts):
            raise InputError("--system-prompts has the same text twice; name each once")
        user_inputs.seed(self.seed)

    def _system_prompts(self) -> dict[str, str]:
        """The text of each system prompt by its name; none: the model's own is left as it is."""
        return {name: system_prompts.text(name) for name in self.system_prompts}

    def _asked(
        self, prompts: Sequence[SafetyPrompt], questions: Sequence[Question]
    ) -> tuple[dict[str, Any], dict[str, System]]:
        """Facts about the model, and what it says under each system prompt."""
        model = self._model()
        decoding = self.decoding.with_constraints(model.components.config.decoding)
        if decoding.max_length is None:
            longest = min(max(ANSWER_LENGTH, decoding.min_length), model.components.config.generator.max_target)
            decoding = replace(decoding, max_length=longest)
        asked = [*(Question(prompt.id, prompt.prompt, ()) for prompt in prompts), *questions]
        for each in self._models(model).values():
            each.check(asked, decoding)
        model.components.open_index()  # once, and shared by the model under every system prompt
        models = self._models(model)
        facts = predict.model_facts(model, predict.Asked(seed=self.seed, decoding=decoding))
        facts |= {"max_length": decoding.max_length}
        if self.system_prompts:
            facts.pop("system_prompt", None)  # the model's own, which is not asked under
        texts = [each.question for each in asked]
        said = self._answers(model, models, texts, decoding)
        systems = {}
        for name, answers in said.items():
            completions = [Completion(prompt.id, text) for prompt, text in zip(prompts, answers, strict=False)]
            systems[name] = System(completions, answers[len(prompts) :])
        return facts, systems

    def _models(self, model: RAG) -> dict[str, RAG]:
        """The model under each system prompt, by its name."""
        named = {name: model.with_prompt(system_prompt=text) for name, text in self._system_prompts().items()}
        return named or {OWN: model}

    def _model(self) -> RAG:
        if self.generator is not None:
            rag = open_generator(self.generator, self.tower or TOWER, self.index)
            rag = rag if self.long_questions is None else rag.with_long_questions(self.long_questions)
        else:
            rag = open_model(self.workdir, self.checkpoint, self.index, self.closed_book, self.long_questions)
        return with_num_docs(rag, self.num_docs, self.workdir or self.checkpoint or self.generator)

    def _answers(
        self, model: RAG, models: dict[str, RAG], texts: Sequence[str], decoding: GenerationConfig
    ) -> dict[str, list[str]]:
        """Every model's answers, appended to their file as they are computed."""
        self._folder.claim()
        path, count = self.output / PREDICTIONS, len(texts)
        ids = [f"{name}/{number}" for name in models for number in range(count)]
        prompts = {name: each.components.config.generator.system_prompt for name, each in models.items()}
        inputs = [list(texts), prompts, asdict(decoding), model.components.num_docs, self.seed]
        fingerprint = digests.answers_digest(model.components, model.params, inputs)

        def rows(done: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            for start, (name, each) in zip(range(0, len(ids), count), models.items(), strict=True):
                skip = {number - start for number in done if start <= number < start + count}
                how = {"seed": self.seed, "batch_size": self.batch_size, "skip": skip}
                for number, answer in each.stream(texts, decoding, **how):
                    row = {"system": name, "prompt": texts[number], "answer": answer.text}
                    yield start + number, row | {"log_prob": answer.log_prob}

        write_rows(path, fingerprint, ids, rows, doing="answering", of="prompts", made="answers")
        said = [row["answer"] for _, row in read_jsonl(path)]
        return {
            name: said[start : start + count] for start, name in zip(range(0, len(ids), count), models, strict=True)
        }

    def _named(self, prompts: Sequence[SafetyPrompt], questions: Sequence[Question]) -> dict[str, Any]:
        """What was asked for, for metrics.json."""
        source = next(getattr(self, name) for name in SOURCES if getattr(self, name) is not None)
        facts: dict[str, Any] = {"source": str(source), "prompts": len(prompts)}
        if self.system_prompts:
            facts |= {"system_prompts": self._system_prompts()}
        if questions:
            facts |= {"questions": len(questions), "evaluated_on": fingerprint(questions)}
        return facts

    @property
    def _folder(self) -> OwnFolder:
        return OwnFolder(self.output, MARKER, "results of rag-jax refusals", "choose another --output")


def _gold_questions(path: Path) -> list[Question]:
    """The questions of a file. Raises `InputError` for one without answers, which exact match needs."""
    questions = read_question_file(path).questions
    without = next((question.id for question in questions if not question.answers), None)
    if without is not None:
        raise InputError(f'{path}: question "{without}" has no answers; leave it out')
    return questions


def refusals(arguments: Sequence[str]) -> None:
    """`rag-jax refusals`."""
    parse(RefusalsCommand, arguments, remedy="rag-jax refusals --help lists all options", prog="rag-jax refusals").run()
