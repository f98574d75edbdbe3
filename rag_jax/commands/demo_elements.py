"""`rag-jax demo elements`: pretrained networks answer questions about the chemical elements, and are trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_jax.commands.answer import show
from rag_jax.commands.invocation import invocation
from rag_jax.commands.narration import console, headline, say
from rag_jax.config.config import Config
from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo.comparison import answer_scores
from rag_jax.demo.data import CORPUS, ELEMENTS_WORKDIR, demo_config, own_folder, write_own
from rag_jax.demo.element_questions import kind, write_corpus
from rag_jax.demo.fact_edit import edit_fact
from rag_jax.demo.figure import draw_flattest
from rag_jax.demo.requirements import MENDELEEV, MINILM, SMOLLM2, check_requirements
from rag_jax.evaluation import results_table
from rag_jax.evaluation.baselines import without_passages
from rag_jax.evaluation.metrics.answers import exact_match
from rag_jax.rag import RAG, Answer
from rag_jax.training.checks import check
from rag_jax.training.run import train_and_evaluate, untrained

SHOWN = ("discoverer", "year", "of_meaning", "use", "producer")
"""The kinds of the questions that are shown, each about another element."""
BEFORE, AFTER = "posterior_zero_shot.png", "posterior.png"
"""The figures of before and after training."""


@dataclass(frozen=True)
class ElementsDemo:
    """Pretrained MiniLM and SmolLM2-135M answer questions about the chemical elements: zero-shot, then trained by LoRA.

    The first answers come after a minute or two. If interrupted, rerun the same command to resume the training.
    """

    workdir: Path = ELEMENTS_WORKDIR  # receives data, index, checkpoints, results.json and two figures

    def run(self) -> None:
        """Answer and measure zero-shot, train, measure and answer again, and edit a fact."""
        check_requirements(("matplotlib",), (MINILM, SMOLLM2, MENDELEEV))
        start, config = time.perf_counter(), demo_config("elements", self.workdir, ELEMENTS_WORKDIR)
        check(config, self.workdir)
        _folder(self.workdir, "figures").check([BEFORE, AFTER])
        write_own(_folder(self.workdir, "data"), CORPUS, write_corpus)
        test = read_questions(self.workdir / "data" / "test.jsonl")
        shown = _one_of_each(test)
        before = _zero_shot(config, self.workdir, test, shown, start)
        rag = _train(config, self.workdir, test, before)
        headline("4. The same five questions after training")
        _answer(rag, shown, self.workdir, AFTER)
        _edit(rag, [question for question in test if kind(question) == "year"])
        say(f"\nDone in {(time.perf_counter() - start) / 60:.1f} minutes.")
        say(f'Next: {invocation()} answer "Who discovered neon?" --workdir {self.workdir} --num-beams 2')
        own = "--data.passages FILE --data.train FILE --data.evaluation FILE --workdir runs/own"
        say(f"Your own passages and questions: {invocation()} train own {own}")


def _folder(workdir: Path, name: str) -> OwnFolder:
    return own_folder(workdir, name, "elements")


def _zero_shot(
    config: Config, workdir: Path, test: Sequence[Question], shown: Sequence[Question], start: float
) -> dict[str, float]:
    """Answer the five questions and measure all, with passages and without, before any training."""
    headline("1. Zero-shot: index the passages, and answer five questions with networks that never saw each other")
    rag = untrained(config, workdir)
    passages, num_docs = len(rag.components.store), rag.components.num_docs
    say(f"{passages} passages. For each question MiniLM retrieves {num_docs}, and SmolLM2 answers from both at once.")
    _answer(rag, shown, workdir, BEFORE)
    say(f"These answers came {time.perf_counter() - start:.0f} s after the start.")
    headline(f"2. Measure: {len(test)} questions about elements that training will not ask about")
    scores = answer_scores(rag, test, "zero_shot_")
    scores |= answer_scores(without_passages(rag), test, "zero_shot_closed_book_")
    read, alone, exact = (scores[f"zero_shot_{name}"] for name in ("f1", "closed_book_f1", "exact_match"))
    say(f"F1 is {read:.3f} with passages and {alone:.3f} without: what retrieval adds before any training.")
    say(f"Exact match is {exact:.3f} with passages: SmolLM2 answers in sentences, which training will change.")
    return scores


def _train(config: Config, workdir: Path, test: Sequence[Question], before: dict[str, float]) -> RAG:
    """Train through retrieval, and print all scores."""
    headline("3. Train: LoRA on SmolLM2, all of MiniLM's question tower, through retrieval (RAG-Token)")
    asked = config.steps * config.batch_size
    say(f"{asked} questions about other elements; both networks learn from one loss, -log p(answer | question).")
    rag, scores = train_and_evaluate(config, workdir)
    results = scores | before | answer_scores(without_passages(rag), test, "closed_book_")
    write_atomically(workdir / "results.json", strict_json.dumps(results, indent=2) + "\n")
    results_table.show(console, results)
    say(f"All scores: {workdir / 'results.json'}")
    return rag


def _answer(rag: RAG, shown: Sequence[Question], workdir: Path, figure: str) -> None:
    """Answer the five questions, and draw for one of them which passage each token came from."""
    answers = rag.answer([question.question for question in shown], batch_size=rag.components.config.eval_batch)
    for question, answer in zip(shown, answers, strict=True):
        show(console, f"{question.question}  (gold: {question.answers[0]})", answer)
    folder = _folder(workdir, "figures")
    drawn, _ = draw_flattest(list(zip(shown, answers, strict=True)), folder, figure)
    say(f"\n{folder.path / figure}: which passage each token of the answer to {drawn.question!r} came from")


def _edit(rag: RAG, years: Sequence[Question]) -> None:
    """Move a discovery by a hundred years in the index, and ask again."""
    headline("5. Edit a fact in the index: the answer follows the text, not what the networks have learnt")
    answers = rag.answer([question.question for question in years], batch_size=rag.components.config.eval_batch)
    question = _from_gold_alone(list(zip(years, answers, strict=True)))
    edit = edit_fact(rag, question, str(int(question.answers[0]) - 100))
    say(f"{edit.title}: {edit.old} replaced by {edit.new} in the index ({edit.seconds:.1f} s)")
    say(f"{question.question}\n  before: {edit.answer_before}\n  after:  {edit.answer_after}")


def _one_of_each(test: Sequence[Question]) -> list[Question]:
    """A question of each kind in `SHOWN`, about different elements."""
    chosen: dict[str, Question] = {}
    for wanted in SHOWN:
        gold = (question for question in test if kind(question) == wanted)
        question = next(each for each in gold if each.id.split("-")[1] not in chosen)
        chosen[question.id.split("-")[1]] = question
    return list(chosen.values())


def _from_gold_alone(answered: Sequence[tuple[Question, Answer]]) -> Question:
    """The first question answered correctly whose answer no passage but the gold one states; else the first of all."""
    for question, answer in answered:
        others = [passage.text for passage in answer.passages if passage.id not in question.positive_ids]
        found = len(others) < len(answer.passages) and not any(question.answers[0] in text for text in others)
        if found and exact_match(answer.text, question.answers):
            return question
    return answered[0][0]
