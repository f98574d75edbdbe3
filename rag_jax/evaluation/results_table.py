"""The results of an evaluation as a table: this model beside its baselines, and a warning where training hurt."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

MARGIN = 0.01  # a recall that is lower by more than this is worse
COMPARED_RECALLS = ("recall@5", "recall@1")
BASELINES = {  # column: the suffix, or the prefix, of its scores in results.json
    "zero-shot": "zero_shot_{}",
    "before training": "{}_before",
    "BM25": "{}_bm25",
    "closed book": "closed_book_{}",
    "closed book, zero-shot": "zero_shot_closed_book_{}",
}


def show(console: Console, results: Mapping[str, Any]) -> None:
    """Print the results of an evaluation, and a warning where the trained retriever is worse than it was."""
    console.print(results_table(results))
    warning = retrieval_warning(results)
    if warning is not None:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)


def results_table(results: Mapping[str, Any]) -> RenderableType:
    """The scores in rows, this model and its baselines in columns; the counts below.

    Args:
        results: what results.json holds.
    """
    baselines = {
        column: key
        for column, key in BASELINES.items()
        if any(key.format(name) in results for name in _scores(results))
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("this model", *baselines):
        table.add_column(column, justify="right")
    for name in _scores(results):
        table.add_row(name.replace("_", " "), *_cells(results, name, *(key.format(name) for key in baselines.values())))
    return Group(table, "", _counts(results))


def retrieval_warning(results: Mapping[str, Any]) -> str | None:
    """One line with a remedy where training made the retriever worse: recall@1 or @5 fell by more than 0.01."""
    for name in COMPARED_RECALLS:
        trained, before = results.get(name), results.get(f"{name}_before")
        if trained is not None and before is not None and before - trained > MARGIN:
            scores = f"{name} is {trained:.3f} after training, {before:.3f} before"
            return f"{scores}; lower optimizer.tower_learning_rate, or set retriever.mode to frozen"
    return None


def _scores(results: Mapping[str, Any]) -> Iterator[str]:
    """The names of this model's own scores, in the order of the file."""
    for name in results:
        is_recall = name.startswith(("recall@", "answer_recall@")) and name.partition("@")[2].isdigit()
        if is_recall or name in ("exact_match", "f1"):
            yield name


def _cells(results: Mapping[str, Any], *names: str) -> list[str]:
    return [f"{results[name]:.3f}" if name in results else "" for name in names]


def _counts(results: Mapping[str, Any]) -> str:
    """What the scores were measured on, in one line."""
    facts = [f"{results['questions']:,} questions"]
    if results.get("questions_cut"):
        facts.append(f"{results['questions_cut']:,} of them cut")
    if any(name.startswith("recall@") for name in results):
        facts.append(f"{results['passages']:,} passages, K = {results['num_docs']}")
    facts.append(f"{results['steps']:,} steps")
    if "train_seconds" in results:
        facts.append(f"{results['train_seconds']:,.0f} s")
    return ", ".join(facts)
