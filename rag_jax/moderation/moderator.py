"""A moderator: the probability of each category of a text, and what the categories' policies make of it.

    p(c|x) = softmax_c(scale log p(c's name|x) + bias_c),   log p(c's name|x) = log sum_z p(z|x) p(c's name|x, z)

All labels are scored in one pass of the network, without generating text. Over an index of labelled texts the passages
`z` are neighbours of the text, and the label is marginalised over them.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast, get_args, overload

import numpy as np
from jaxtyping import Float

from rag_jax.errors import InputError
from rag_jax.moderation import calibration, pieces, prompts
from rag_jax.moderation.calibration import Calibration
from rag_jax.moderation.categories import SELF_REFLECTION, Categories, Category, Policy
from rag_jax.moderation.prompts import Role
from rag_jax.pipeline import user_inputs
from rag_jax.pipeline.answers import Decision
from rag_jax.rag import RAG

logger = logging.getLogger("rag_jax.moderation")  # an INFO line of JSON for each decision
POLICIES = cast(tuple[Policy, ...], get_args(Policy))


@dataclass(frozen=True, eq=False)
class Moderator:
    """A model that classifies texts by the likelihood of the categories' names. Immutable."""

    rag: RAG  # trained on these categories, or with a prompt that names them, as `self_reflecting` writes
    categories: Categories
    calibration: Calibration = field(default_factory=Calibration)
    names_roles: bool = False  # whether the prompt says what the text is

    @classmethod
    def self_reflecting(cls, rag: RAG, categories: Categories = SELF_REFLECTION) -> "Moderator":
        """An instruct model that was not trained to moderate, asked as Mistral 7B is (Jiang et al. 2023, section 5.2).

        Its labels are calibrated on texts without content. Raises `InputError` for a generator with an encoder.
        """
        prompt = prompts.system_prompt(categories), prompts.question_template("question")
        asked = cls(rag.with_prompt(system_prompt=prompt[0], question_template=prompt[1]), categories, names_roles=True)
        return asked.with_calibration(calibration.content_free(asked.log_likelihoods(calibration.CONTENT_FREE)))

    def with_calibration(self, calibration: Calibration) -> "Moderator":
        """The same moderator, calibrated otherwise."""
        return dataclasses.replace(self, calibration=calibration)

    def calibrated(self, texts: Sequence[str], labels: Sequence[str], *, batch_size: int = 64) -> "Moderator":
        """The same moderator, calibrated on texts with the names of their categories.

        Raises `InputError` for a label that is no category, and for a category without a text.
        """
        if len(texts) != len(labels):
            raise InputError(f"{len(texts)} texts and {len(labels)} labels; give one label for each")
        if odd := [label for label in labels if label not in self.categories.names]:
            raise InputError(f"label {odd[0]!r}: is none of the categories {', '.join(self.categories.names)}")
        numbers = np.array([self.categories.names.index(label) for label in labels])
        return self.with_calibration(calibration.fit(self.log_likelihoods(texts, batch_size=batch_size), numbers))

    @overload
    def __call__(self, texts: str, role: Role = ..., *, batch_size: int = ...) -> Decision: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, texts: Sequence[str], role: Role = ..., *, batch_size: int = ...) -> list[Decision]: ...
    def __call__(self, texts, role: Role = "question", *, batch_size=64):
        """The decision on one text, or on each of a list. Raises `InputError` for an empty text."""
        found = dict(self.stream(user_inputs.listed(texts), role, batch_size=batch_size))
        return found[0] if isinstance(texts, str) else [found[number] for number in range(len(found))]

    def stream(
        self, texts: Sequence[str], role: Role = "question", *, batch_size: int = 64, skip: Collection[int] = ()
    ) -> Iterator[tuple[int, Decision]]:
        """(number, decision) of every text, a batch at a time; `skip` holds numbers of texts to leave out.

        A text that is too long for the model is read in pieces, and the least acceptable one decides.
        """
        texts = user_inputs.texts(texts, "texts")
        for number, scores in self._scored(texts, role, batch_size, skip):
            probabilities = self.calibration(scores)
            worst = probabilities[int(np.argmin(probabilities[:, 0]))]
            decision = self._decide(texts[number], role, worst)
            logger.info("%s", json.dumps(decision._asdict()))
            yield number, decision

    def log_likelihoods(
        self, texts: Sequence[str], role: Role = "question", *, batch_size: int = 64
    ) -> Float[np.ndarray, "B C"]:
        """`log p(c's name|x)` of each text, in nats, before calibration; of its least acceptable piece."""
        texts = user_inputs.texts(texts, "texts")
        found = dict(self._scored(texts, role, batch_size, ()))
        rows = [found[number] for number in range(len(texts))]
        worst = [each[int(np.argmin(self.calibration(each)[:, 0]))] for each in rows]
        return np.stack(worst) if worst else np.zeros((0, len(self.categories.names)))

    def _scored(
        self, texts: Sequence[str], role: Role, batch_size: int, skip: Collection[int]
    ) -> Iterator[tuple[int, Float[np.ndarray, "pieces C"]]]:
        """(number, log-likelihoods of its pieces) of each text, as soon as all of them are known."""
        asked = self._of_role(role)
        split = {n: self._pieces(asked, text, n) for n, text in enumerate(texts) if n not in skip}
        owners = [number for number, own in split.items() for _ in own]
        flat, known = [piece for own in split.values() for piece in own], {number: [] for number in split}
        for number, best in asked.stream_choices(flat, self.categories.names, batch_size=batch_size):
            row = np.full(len(self.categories.names), -np.inf)
            for label in (best, *best.alternatives):
                row[self._numbers[label.text]] = label.log_prob
            owner = owners[number]
            known[owner].append(row)
            if len(known[owner]) == len(split[owner]):
                yield owner, np.stack(known.pop(owner))

    def _decide(self, text: str, role: Role, probabilities: Float[np.ndarray, " C"]) -> Decision:
        """The strictest policy whose category reaches its threshold; of several such categories, the most likely."""
        by_name = dict(zip(self.categories.names, probabilities.tolist(), strict=True))

        def rank(each: Category) -> tuple[int, float]:
            return POLICIES.index(each.policy), by_name[each.name]

        reached = [each for each in self.categories.moderated if by_name[each.name] >= each.threshold]
        digest = hashlib.sha256(text.encode()).hexdigest()
        if not reached:
            name = self.categories.acceptable
            return Decision(role, digest, name, by_name[name], None, "pass", by_name)
        first = max(reached, key=rank)
        return Decision(role, digest, first.name, by_name[first.name], first.threshold, first.policy, by_name)

    def _of_role(self, role: Role) -> RAG:
        if role not in get_args(Role):
            raise InputError(f"role {role!r}: give {', '.join(get_args(Role))}")
        return self.rag.with_prompt(question_template=prompts.question_template(role)) if self.names_roles else self.rag

    def _pieces(self, asked: RAG, text: str, number: int) -> list[str]:
        if not text.strip():
            raise InputError(f"text {number + 1} is empty; write one, or leave it out")
        return pieces.split(text.strip(), asked.components.example_tokenizer.fits)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each category by what the tokens of its name decode to."""
        tokenizer = self.rag.components.generator_tokenizer
        decoded = [tokenizer.text(ids) for ids in tokenizer.targets(self.categories.names)]
        if len(set(decoded)) < len(decoded):
            names = ", ".join(self.categories.names)
            raise InputError(f"categories {names}: two of them are the same to the generator; give other names")
        return {text: number for number, text in enumerate(decoded)}
