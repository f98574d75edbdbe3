"""Systems that were given prompts, judged: whether each answer refuses, the rates, and what is written about them.

A system is a model under one system prompt, or one of the models in a file of completions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from rag_jax.data import strict_json
from rag_jax.data.questions import Question
from rag_jax.data.safety_prompts import SafetyPrompt
from rag_jax.errors import InputError
from rag_jax.evaluation import refusal_report, refusals
from rag_jax.evaluation.completions import HUMAN, LABELS, Completion
from rag_jax.evaluation.intervals import Figure
from rag_jax.evaluation.metrics.refusal import is_refusal, string_match
from rag_jax.evaluation.refusal_report import RefusalReport
from rag_jax.evaluation.score_file import AnsweredQuestion
from rag_jax.evaluation.scores import Each

COMPLETIONS, ANSWERS = "completions.jsonl", "answers.jsonl"
FILES = (refusal_report.METRICS, refusal_report.TABLE, COMPLETIONS, ANSWERS)
RULES = "rules"  # the judge whose word the rates are
ALL = "all"  # models together


class System(NamedTuple):
    """What a system said: a completion of every prompt, and an answer to every question."""

    completions: Sequence[Completion]
    answers: Sequence[str] = ()


Systems = Mapping[str, System]
Judged = dict[str, Bool[np.ndarray, " B"]]


@dataclass(frozen=True, eq=False)
class RefusalRun:
    """The prompts and questions of a run, and what each system said."""

    prompts: Sequence[SafetyPrompt]
    questions: Sequence[Question]
    systems: Systems

    @cached_property
    def refused(self) -> Judged:
        """Whether each completion refuses, by system."""
        return {
            name: np.array([is_refusal(each.text) for each in system.completions])
            for name, system in self.systems.items()
        }


def report(run: RefusalRun, facts: Mapping[str, Any]) -> RefusalReport:
    """Rates by system, in all and by type; the comparison of systems; how far judges agree with people."""
    refused = run.refused
    scores = {name: _scores(run, refused[name], system) for name, system in run.systems.items()}
    return RefusalReport(
        facts,
        {name: refusals.rates(each) for name, each in scores.items()},
        {name: refusals.rates_by_type(run.prompts, each) for name, each in refused.items()},
        refusals.compared(scores, _items(run)),
        _agreement(run, refused),
    )


def files(run: RefusalRun, found: RefusalReport) -> dict[str, bytes]:
    """The files by name."""
    written = refusal_report.texts(found) | {COMPLETIONS: "".join(_completion_lines(run))}
    if run.questions:
        written[ANSWERS] = "".join(_answer_lines(run))
    return {name: text.encode() for name, text in written.items()}


def _scores(run: RefusalRun, refused: Bool[np.ndarray, " B"], system: System) -> Each:
    """Scores of prompts and questions as one array each: every score is NaN on the items that it is not about."""
    of_prompts = refusals.refusal_scores(run.prompts, refused)
    padded = partial(np.pad, constant_values=np.nan)
    scores = {name: padded(values, (0, len(run.questions))) for name, values in of_prompts.items()}
    if run.questions:
        of_questions = refusals.answer_scores(run.questions, system.answers)
        scores |= {name: padded(values, (len(run.prompts), 0)) for name, values in of_questions.items()}
    return scores


def _items(run: RefusalRun) -> list[AnsweredQuestion]:
    prompts = [AnsweredQuestion(each.id, each.prompt, "", (), 0) for each in run.prompts]
    return [*prompts, *(AnsweredQuestion(each.id, each.question, "", each.answers, 0) for each in run.questions)]


def _agreement(run: RefusalRun, refused: Judged) -> dict[str, dict[str, dict[str, Figure]]]:
    """Figures by judge and model, where people have labelled every completion."""
    every = [each for system in run.systems.values() for each in system.completions]
    if any(each.labels.get(HUMAN) is None for each in every):
        return {}
    judges: dict[str, Sequence[bool | None]] = {
        RULES: [bool(each) for name in run.systems for each in refused[name]],
        "XSTest's string match": [string_match(each.text) for each in every],
    }
    for column in every[0].labels:
        if column != HUMAN:
            judges[column] = [None if (label := each.labels[column]) is None else LABELS[label] for each in every]
    return {judge: _of_judge(run, every, said) for judge, said in judges.items()}


def _of_judge(
    run: RefusalRun, every: Sequence[Completion], said: Sequence[bool | None]
) -> dict[str, dict[str, Figure]]:
    """A judge's agreement by model, and on all of them; completions that it did not judge are left out."""
    prompts = np.tile(np.arange(len(run.prompts)), len(run.systems))
    models = np.repeat(list(run.systems), len(run.prompts))
    gold = np.array([LABELS[str(each.labels[HUMAN])] for each in every])
    judged, predicted = np.array([each is not None for each in said]), np.array([bool(each) for each in said])
    found = {}
    if ALL in run.systems and len(run.systems) > 1:
        raise InputError(f'a model is called "{ALL}", as all models together are; give it another name')
    for name in (*run.systems, *([ALL] if len(run.systems) > 1 else [])):
        here = judged if name == ALL else judged & (models == name)
        found[name] = refusals.agreement(predicted[here], gold[here], prompts[here])
    return found


def _completion_lines(run: RefusalRun) -> Iterator[str]:
    for name, refused in run.refused.items():
        for each, is_refused in zip(run.systems[name].completions, refused.tolist(), strict=True):
            row = {"prompt_id": each.prompt_id, "model": name, "completion": each.text, "refused": is_refused}
            yield strict_json.dumps(row | dict(each.labels), ensure_ascii=False) + "\n"


def _answer_lines(run: RefusalRun) -> Iterator[str]:
    for name, system in run.systems.items():
        scores = refusals.answer_scores(run.questions, system.answers)
        for number, (question, answer) in enumerate(zip(run.questions, system.answers, strict=True)):
            values = {key: float(each[number]) for key, each in scores.items()}
            known = {key: None if np.isnan(value) else value for key, value in values.items()}
            row = {"id": question.id, "model": name, "question": question.question, "answer": answer}
            yield strict_json.dumps(row | {"answers": question.answers, "scores": known}, ensure_ascii=False) + "\n"
