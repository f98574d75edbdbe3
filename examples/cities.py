"""The world's cities, from facts to answers: python -m examples.cities --workdir runs/demo  (or: make demo)

Builds the knowledge base, trains, compares with the same model without passages and with the retriever as it was,
answers questions, draws where each answer token came from, and rewrites a fact in the index.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rag_jax.commands.answer import show
from rag_jax.config import config as configs
from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question, read_questions
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.demo.questions import write_corpus
from rag_jax.errors import report_errors
from rag_jax.evaluation import evaluate
from rag_jax.evaluation.figures import token_posterior
from rag_jax.evaluation.metrics import exact_match
from rag_jax.rag import RAG
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.run import fit, train_and_evaluate

ROOT = Path(__file__).resolve().parent.parent
console = Console()


def main(workdir: Path) -> None:
    headline(f"1. The corpus: GeoNames' cities as passages and questions, in {workdir / 'data'}")
    prepare(workdir / "data")
    settings = {name: place(name, workdir) for name in ("cities_reader", "cities", "cities_closed_book")}

    headline("2. The generator learns to read: every question comes with its city's passage")
    fit(settings["cities_reader"], workdir / "reader")
    headline("3. RAG-Token: question tower and generator learn together")
    rag, trained = train_and_evaluate(dataclasses.replace(settings["cities"], closed_book=None), workdir)
    headline("4. The same generator without passages, trained as long")
    _, closed = train_and_evaluate(settings["cities_closed_book"], workdir / "closed_book")

    headline("5. What came of it")
    test = read_questions(workdir / "data" / "test.jsonl")
    results = trained | {
        "closed_book_exact_match": closed["exact_match"],
        "train_seconds": trained["train_seconds"] + seconds_trained(workdir / "reader"),
        **by_alternate_name(rag, test),
    }
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(results)

    headline("6. Five questions about cities that were never asked about in training")
    asked = [next(q for q in test if f"-{kind}-" in q.id) for kind in ("population", "latitude", "country", "timezone")]
    asked.append(next(q for q in test if q.id.endswith("population-alternate")))
    for question, answer in zip(asked, rag.answer([q.question for q in asked]), strict=True):
        show(console, f"{question.question}  (gold: {question.answers[0]})", answer)

    headline("7. Which passage each token was taken from")
    draw(rag, test, workdir / "posterior.png")
    headline("8. A fact changes in the index, and the answer changes with it: nothing is trained")
    hot_swap(rag, asked[0])
    tell(f'\nNext: .venv/bin/rag-jax answer "What is the population of Lyon?" --workdir {workdir}')


def prepare(folder: Path) -> None:
    """Write passages, questions and the generator's vocabulary, unless they are there."""
    if (folder / "tokenizer.json").exists():
        return
    write_corpus(folder)
    passages = [f"{passage.title} / {passage.text}" for passage in read_passages(folder / "passages.jsonl")]
    questions = [f" {question.question}" for question in read_questions(folder / "train.jsonl")]
    size = configs.read(ROOT / "configs" / "cities.py").generator.vocabulary
    train_generator_tokenizer(passages + questions, size).tokenizer.save(str(folder / "tokenizer.json"))


def place(name: str, workdir: Path) -> configs.Config:
    """A config of configs/, its runs/demo put where the workdir is."""
    config = configs.read(ROOT / "configs" / f"{name}.py")
    return configs.relocate(config, Path("runs/demo"), workdir)


def by_alternate_name(rag: RAG, test: list[Question]) -> dict[str, float]:
    """Recall at 1 on the questions that do not name a city as its passage does, trained and frozen."""
    asked = [question for question in test if question.id.endswith("-alternate")]
    frozen = RAG(rag.components, rag.components.initial_params)
    return {
        "recall@1_alternate": evaluate.recall(rag, asked)["recall@1"],
        "recall@1_alternate_frozen": evaluate.recall(frozen, asked)["recall@1"],
    }


def report(results: dict) -> None:
    """The figures, and what each is to be compared with."""
    table = Table("", "this model", "compared with", box=None, pad_edge=False)
    rows = [
        ("exact match", "exact_match", "closed_book_exact_match", "without passages"),
        ("recall@1", "recall@1", "recall@1_frozen", "retriever as it was"),
        ("recall@1, alternate names", "recall@1_alternate", "recall@1_alternate_frozen", "retriever as it was"),
    ]
    for label, ours, other, name in rows:
        table.add_row(label, f"{results[ours]:.3f}", f"{results[other]:.3f}  {name}")
    console.print(table)
    tell(
        f"{results['questions']} test questions, {results['passages']} passages, K = {results['num_docs']}, "
        f"trained for {results['train_seconds']:.0f} s. All figures: results.json in the workdir."
    )


def draw(rag: RAG, test: list[Question], path: Path) -> None:
    """The paper's figure 2, for the question whose retriever was least sure and whose answer is right all the same."""
    asked = [question for question in test if question.id.endswith(("population-alternate", "latitude-alternate"))]
    answered = zip(asked, rag.answer([question.question for question in asked], num_docs=5), strict=True)
    right = [(question, answer) for question, answer in answered if exact_match(answer.text, question.answers)]
    question, answer = min(right, key=lambda pair: pair[1].passages[0].log_prior)
    token_posterior(question.question, answer, path)
    tell(f"{path}: p(passage | question, token) for {question.question!r}, {answer.text}")


def hot_swap(rag: RAG, question: Question) -> None:
    """Rewrite the population in the passage of the question's city, and ask again."""
    row = int(rag.components.store.find(question.positive_ids[:1])[0])
    old, (before,) = rag.components.store.passages[row], question.answers
    after = str(int(before[::-1]) + 10 ** (len(before) - 1))[: len(before)]
    began = time.perf_counter()
    changed = rag.with_passage(Passage(old.id, old.title, old.text.replace(before, after)))
    (then,), (now,) = rag.answer([question.question]), changed.answer([question.question])
    tell(f"{old.title}: {before} became {after} in the index ({time.perf_counter() - began:.1f} s)")
    tell(f"{question.question}\n  before: {then.text}\n  after:  {now.text}")


def headline(text: str) -> None:
    tell(f"\n[bold]{text}[/bold]")


def tell(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/demo"))
    began = time.perf_counter()
    with report_errors():
        main(parser.parse_args().workdir)
    console.print(f"Done in {(time.perf_counter() - began) / 60:.1f} minutes.")
