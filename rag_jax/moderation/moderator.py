"""A moderator: the probability of each category of a text, and what the categories' policies make of it.

    p(c|x) = softmax_c(scale log p(c's name|x) + bias_c),   log p(c's name|x) = log sum_z p(z|x) p(c's name|x, z)

All labels are scored in one pass of the network, without generating text. Over an index of labelled texts the passages
`z` are neighbours of the text, and the label is marginalised over them.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args, overload

import numpy as np
from jaxtyping import Float

from rag_jax.data import strict_json
from rag_jax.errors import InputError
from rag_jax.evaluation.labels import Labels
from rag_jax.moderation import calibration, pieces, prompts
from rag_jax.moderation.calibration import Calibration
from rag_jax.moderation.categories import SELF_REFLECTION, Categories, Policy
from rag_jax.moderation.prompts import Role
from rag_jax.pipeline import user_inputs
from rag_jax.pipeline.answers import Decision
from rag_jax.pipeline.generation import label_tokens
from rag_jax.rag import RAG

logger = logging.getLogger("rag_jax.moderation")  # an INFO line of JSON for each decision
POLICIES = cast(tuple[Policy, ...], get_args(Policy))


@dataclass(frozen=True, eq=False)
class Moderator:
    """A model that classifies texts by the likelihood of the categories' names. Immutable.

    Raises `InputError` for names that the model cannot tell apart or that are too long for it.
    """

    rag: RAG  # trained on these categories, or with a prompt that names them, as `self_reflecting` writes
    categories: Categories
    calibration: Calibration | None = None  # None: none, or with self-reflection on texts without content
    reflects: bool = False  # whether the prompt names the categories, and says what the text is
    calibrated_for: Role | None = None  # the role whose prompt the calibration was fitted to; None: all have one prompt

    def __post_init__(self) -> None:
        components, names = self.rag.components, self.categories.names
        label_tokens(names, components.limits, components.generator_tokenizer)
        self._decoded_names  # noqa: B018 - names that are the same to the generator are refused here
        bias = None if self.calibration is None else self.calibration.bias
        if bias is not None and len(bias) != len(names):
            raise InputError(
                f"calibration: a bias of {len(bias)} labels for {len(names)} categories; give one for each"
            )

    @classmethod
    def self_reflecting(cls, rag: RAG, categories: Categories = SELF_REFLECTION) -> "Moderator":
        """An instruct model that was not trained to moderate, asked as Mistral 7B is (Jiang et al. 2023, section 5.2).

        Its labels are calibrated on texts without content. Raises `InputError` for a generator with an encoder.
        """
        prompt = prompts.system_prompt(categories), prompts.question_template("question")
        asked = rag.with_prompt(system_prompt=prompt[0], question_template=prompt[1])
        return cls(asked, categories, reflects=True)

    def calibrated(
        self, texts: Sequence[str], labels: Sequence[str], role: Role = "question", *, batch_size: int = 64
    ) -> "Moderator":
        """The same moderator, its scale and bias fitted to texts in a role and the names of their categories.

        With self-reflection they count for this role alone, whose prompt they fit. Raises `InputError` for a label that
        is no category, for a category without a text, and where the labels do not follow the model's scores.
        """
        if len(texts) != len(labels):
            raise InputError(f"{len(texts)} texts and {len(labels)} labels; give one label for each")
        if odd := [label for label in labels if label not in self.categories.names]:
            raise InputError(f"label {odd[0]!r} is not one of the categories {', '.join(self.categories.names)}")
        numbers = np.array([self.categories.names.index(label) for label in labels])
        scores = self.log_likelihoods(texts, role, batch_size=batch_size)
        fitted = calibration.fit(scores, numbers)
        return dataclasses.replace(self, calibration=fitted, calibrated_for=role if self.reflects else None)

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

        A text that is too long for the model is read in pieces, and the strictest decision on one of them counts.
        """
        texts, calibrate = user_inputs.texts(texts, "texts"), self._calibration(role)
        for number, scores in self._scored(texts, role, batch_size, skip):
            digest = hashlib.sha256(texts[number].encode()).hexdigest()
            decision = self._strictest([self._decide(role, digest, row) for row in calibrate(scores)])
            logger.info("%s", strict_json.dumps(decision._asdict()))
            yield number, decision

    def log_likelihoods(
        self, texts: Sequence[str], role: Role = "question", *, batch_size: int = 64
    ) -> Float[np.ndarray, "B C"]:
        """`log p(c's name|x)` of each text, in nats, before calibration; of its least acceptable piece."""
        found = dict(self._scored(user_inputs.texts(texts, "texts"), role, batch_size, ()))
        rows = [found[number] for number in range(len(found))]
        worst = [each[int(np.argmin(Calibration()(each)[:, 0]))] for each in rows]
        return np.stack(worst) if worst else np.zeros((0, len(self.categories.names)))

    def _scored(
        self, texts: Sequence[str], role: Role, batch_size: int, skip: Collection[int]
    ) -> Iterator[tuple[int, Float[np.ndarray, "pieces C"]]]:
        """(number, log-likelihoods of its pieces) of each text, as soon as all of them are known."""
        asked = self._asked(role)
        split = {n: self._pieces(asked, text, n) for n, text in enumerate(texts) if n not in skip}
        owners = [number for number, own in split.items() for _ in own]
        flat, known = [piece for own in split.values() for piece in own], {number: [] for number in split}
        for number, best in asked.stream_choices(flat, self.categories.names, batch_size=batch_size):
            row = np.full(len(self.categories.names), -np.inf)
            for label in (best, *best.alternatives):
                row[self.categories.names.index(self._decoded_names[label.text])] = label.log_prob
            owner = owners[number]
            known[owner].append(row)
            if len(known[owner]) == len(split[owner]):
                yield owner, np.stack(known.pop(owner))

    def _decide(self, role: Role, digest: str, probabilities: Float[np.ndarray, " C"]) -> Decision:
        """The strictest policy whose category reaches its threshold; of several such categories, the most likely."""
        by_name = dict(zip(self.categories.names, probabilities.tolist(), strict=True))
        if not np.isfinite(probabilities).all():
            raise InputError("a text has no probabilities: all categories have probability 0; look into the model")
        reached = [each for each in self.categories.moderated if by_name[each.name] >= each.threshold]
        if not reached:
            name = self.categories.acceptable
            return Decision(role, digest, name, by_name[name], None, "pass", by_name)
        first = max(reached, key=lambda each: (POLICIES.index(each.policy), by_name[each.name]))
        return Decision(role, digest, first.name, by_name[first.name], first.threshold, first.policy, by_name)

    def _strictest(self, decisions: list[Decision]) -> Decision:
        """The decision with the strictest policy; of several, the one on the least acceptable piece."""
        acceptable = self.categories.acceptable
        return max(decisions, key=lambda each: (POLICIES.index(each.policy), -each.probabilities[acceptable]))

    def _calibration(self, role: Role) -> Calibration:
        is_fitted = self.calibration is not None and self.calibrated_for in (None, role)
        if is_fitted or not self.reflects:
            return self.calibration or Calibration()
        if role not in self._by_role:  # each role has a prompt of its own, and so labels that it prefers
            self._by_role[role] = calibration.content_free(self.log_likelihoods(calibration.CONTENT_FREE, role))
        return self._by_role[role]

    @cached_property
    def _by_role(self) -> dict[Role, Calibration]:
        return {}

    def _asked(self, role: Role) -> RAG:
        """The model with the prompt for a role."""
        if role not in get_args(Role):
            raise InputError(f"role {role!r}: give {', '.join(get_args(Role))}")
        return self._rags[role] if self.reflects else self.rag

    @cached_property
    def _rags(self) -> dict[Role, RAG]:
        self.rag.components.open_index()  # once, and shared by all roles
        templates = {role: prompts.question_template(role) for role in get_args(Role)}
        return {role: self.rag.with_prompt(question_template=template) for role, template in templates.items()}

    def _pieces(self, asked: RAG, text: str, number: int) -> list[str]:
        if not text.strip():
            raise InputError(f"text {number + 1} is empty; write one, or leave it out")
        return pieces.split(text.strip(), asked.components.example_tokenizer.fits)

    @cached_property
    def _decoded_names(self) -> dict[str, str]:
        """The name of each category by what its tokens decode to."""
        names = self.categories.names
        return Labels(names, names).decoded_names(self.rag.components.generator_tokenizer)
