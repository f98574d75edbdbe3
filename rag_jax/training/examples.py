"""Tokenise the training questions and check them against the index."""

from collections.abc import Sequence

from rich.console import Console

from rag_jax.data.batches import Examples
from rag_jax.data.questions import Question, training_pairs
from rag_jax.errors import InputError, warn
from rag_jax.index.engines.registry import ENGINES
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.gold_passages import check_gold


def tokenize_pairs(components: Components, questions: Sequence[Question], console: Console) -> Examples:
    """Tokenise the training pairs. Prints the number of pairs left out because of long answers.

    Raises `InputError` for a question without the passages that its mode or engine needs.
    """
    config, limit = components.config, components.config.generator.max_target
    pairs = training_pairs(questions, config.data.answers)
    kept = components.example_tokenizer.short_targets(pairs)
    if not kept:
        raise InputError(f"no training answer has at most {limit} tokens; raise generator.max_target")
    if len(kept) < len(pairs):
        left = f"{len(pairs) - len(kept)} of {len(pairs)} training pairs"
        console.print(f"left out {left}: answers of more than {limit} tokens (generator.max_target)", soft_wrap=True)
    named = sorted({i for question, _ in kept for i in (*question.positive_ids, *question.passage_ids)})
    rows = {i: row for i, row in zip(named, components.store.find(named).tolist(), strict=True) if row >= 0}
    _check_passages(components, [question for question, _ in kept], rows)
    check_gold(components.store, questions, "training questions")
    examples = components.example_tokenizer(kept, rows)
    if examples.questions.num_truncated:
        cut = f"cut {examples.questions.num_truncated} of {len(kept)} training questions"
        console.print(f"{cut}: more than {components.question_length} tokens (retriever.max_question)", soft_wrap=True)
    return examples


def _check_passages(components: Components, questions: Sequence[Question], rows: dict[str, int]) -> None:
    """Raise `InputError` for a question without the passages that its mode or engine reads; warn of unknown ones."""
    retriever = components.config.retriever
    if components.config.data.is_closed_book:
        return
    for question in questions:
        if retriever.mode == "gold" and not any(i in rows for i in question.positive_ids):
            raise InputError(
                f"question {question.id!r} names no gold passage of the index; retriever.mode gold needs one"
            )
        if ENGINES[retriever.engine].reads_question_file and not any(i in rows for i in question.passage_ids):
            remedy = f"retriever.engine {retriever.engine} needs passage_ids"
            raise InputError(f"question {question.id!r} names no passage of the index to be read; {remedy}")
    if ENGINES[retriever.engine].reads_question_file:
        named = {i for question in questions for i in question.passage_ids}
        if unknown := sorted(named - rows.keys()):
            problem = f"{len(unknown):,} of the {len(named):,} passage_ids of the training questions"
            warn(f"{problem} name no passage of the index, and are not read (the first is {unknown[0]!r})")
