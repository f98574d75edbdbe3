"""The facade: questions in, answers with their passages out. Nothing is possible only through it.

rag = RAG.from_workdir("runs/demo")
rag.answer(["What is the population of Bombay?"])
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from rag_jax.core import decoding, retrieval, training
from rag_jax.data.batches import in_order, tokenize
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.store import Store
from rag_jax.run.assembly import OBJECTIVES, Parts, assemble
from rag_jax.run.checkpoints import Checkpoints
from rag_jax.run.config import load
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens


class ReadPassage(NamedTuple):
    """A retrieved passage and what it contributed to an answer."""

    id: str
    title: str
    text: str
    log_prior: float  # log p(z|x), by the retriever
    posterior: float  # p(z|x,y); with RAG-Token the mean over the answer's tokens


class Answer(NamedTuple):
    """An answer, its probability under the model, and the passages it rests on, best first."""

    text: str
    log_prob: float  # log p(y|x), in nats
    passages: list[ReadPassage]
    tokens: list[str]
    token_posteriors: Float[np.ndarray, "K T"]  # p(z|x,y_t,y_<t) for each of `tokens`


@dataclass(frozen=True)
class RAG:
    """A trained model with its knowledge. Frozen: whatever changes it returns another one."""

    parts: Parts
    params: RagParams

    @classmethod
    def from_workdir(cls, workdir: str | Path) -> "RAG":
        """The model that `train.py` left in a workdir, at its newest checkpoint.

        Raises `InputError` where there is none.
        """
        workdir = Path(workdir)
        parts = assemble(load(workdir / "config.json"), workdir)
        return cls(parts, restore_params(workdir, parts))

    @cached_property
    def knowledge(self) -> Knowledge:
        """The index on the device."""
        return jax.device_put(self.parts.store.knowledge)

    def answer(self, questions: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64) -> list[Answer]:
        """Greedy answers, in the order of the questions. `num_docs` is K, as in training unless given.

        Raises `InputError` for an empty or too long question, and for more passages than the index has.
        """
        c, k = self.parts.config, self._check_num_docs(num_docs)
        program = _answering(self.parts.networks, c.model, self.parts.limits, k, c.generator.max_input)
        answers: dict[int, Answer] = {}
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            answered = jax.device_get(program(self.params, self.knowledge, batch.question, batch.prompt))
            for row, number in enumerate(chosen):
                answers[int(number)] = self._answer(jax.tree.map(lambda array, row=row: array[row], answered))
        return [answers[number] for number in range(len(questions))]

    def log_likelihood(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> Float[np.ndarray, "B"]:
        """`log p(y|x)` in nats of one given answer for each question, marginalised over the K passages."""
        if len(questions) != len(answers):
            raise InputError(f"{len(questions)} questions and {len(answers)} answers; give one answer for each")
        c, k = self.parts.config, self._check_num_docs(num_docs)
        program = _scoring(self.parts.networks, c.model, k, c.generator.max_input)
        found = np.zeros(len(questions), np.float32)
        for batch, chosen in self._batches(questions, answers, batch_size):
            found[chosen] = np.asarray(program(self.params, self.knowledge, batch))[: len(chosen)]
        return found

    def search(self, questions: Sequence[str], k: int, *, batch_size: int = 64) -> Int[np.ndarray, "B K"]:
        """The rows of the k best passages for each question, best first."""
        program = _searching(self.parts.networks, self._check_num_docs(k))
        rows = np.zeros((len(questions), k), np.int32)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            rows[chosen] = np.asarray(program(self.params, self.knowledge, batch.question))[: len(chosen)]
        return rows

    def with_passage(self, changed: Passage) -> "RAG":
        """The same model with one passage of its index rewritten: no training, no new compilation."""
        store = self.parts.store.replace(changed, self.parts.encoder, self.parts.vocabulary)
        return self.with_store(store)

    def with_store(self, store: Store) -> "RAG":
        """The same model over another knowledge store (the paper's index hot-swap)."""
        return replace(self, parts=replace(self.parts, store=store))

    def _check_num_docs(self, num_docs: int | None) -> int:
        k = self.parts.num_docs if num_docs is None else num_docs
        held = len(self.parts.store.passages)
        if not 1 <= k <= held:
            raise InputError(f"cannot read {k} of {held} passages; ask for 1 to {held}")
        return k

    def _batches(
        self, questions: Sequence[str], answers: Sequence[str], batch_size: int
    ) -> Iterator[tuple[Batch, Int[np.ndarray, "b"]]]:
        for number, question in enumerate(questions):
            if not question.strip():
                raise InputError(f"question {number + 1} is empty; write one")
        asked = zip(questions, answers, strict=True)
        pairs = [
            (Question(str(number), question, (answer,)), answer) for number, (question, answer) in enumerate(asked)
        ]
        c = self.parts.config
        examples = tokenize(
            pairs,
            self.parts.encoder.tokenizer,
            self.parts.vocabulary,
            {},
            max_question=c.retriever.max_question,
            max_target=c.generator.max_target,
            ladder=c.buckets,
        )
        return in_order(examples, self.parts.vocabulary, min(batch_size, _power_of_two(len(questions))))

    def _answer(self, found: decoding.Answered) -> Answer:
        decoded, passages = found.decoded, self.parts.store.passages
        ids = decoded.tokens[decoded.mask]
        read = [
            ReadPassage(*passages[row], log_prior=float(prior), posterior=float(posterior))
            for row, prior, posterior in zip(
                found.retrieved.ids, found.doc_log_prior, decoded.doc_posterior, strict=True
            )
        ]
        tokenizer = self.parts.vocabulary.tokenizer
        pieces = [tokenizer.decode([int(i)], skip_special_tokens=False) for i in ids]
        posteriors = np.asarray(decoded.token_doc_posterior)[:, : len(ids)]
        return Answer(self.parts.vocabulary.text(ids), float(decoded.log_prob), read, pieces, posteriors)


def restore_params(workdir: Path, parts: Parts) -> RagParams:
    """The parameters of a workdir's newest checkpoint, for the networks of `parts`.

    Raises `InputError` where there is none, and where it is of other networks.
    """
    recipe = replace(parts, config=load(workdir / "config.json")).recipe  # the optimizer may have been another
    checkpoints = Checkpoints(workdir)
    state = checkpoints.restore(lambda: training.init(recipe, parts.first, jax.random.key(0)))
    checkpoints.close()
    if state is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: python train.py CONFIG --workdir {workdir}")
    return state.params


@lru_cache
def _answering(networks: Networks, model: str, limits: decoding.Limits, num_docs: int, max_length: int):
    """The compiled program from question tokens to answers: one for each composition, whatever the index holds."""
    decoder = decoding.DECODERS[model]
    return jax.jit(
        partial(decoding.answer, networks, decoder=decoder, limits=limits, num_docs=num_docs, max_length=max_length)
    )


@lru_cache
def _scoring(networks: Networks, model: str, num_docs: int, max_length: int):
    recipe = training.Recipe(networks, OBJECTIVES[model], optax.identity(), num_docs, max_length)
    return jax.jit(partial(training.eval_step, recipe))


@lru_cache
def _searching(networks: Networks, num_docs: int):
    def search(params: RagParams, knowledge: Knowledge, question: Tokens) -> Array:
        queries = networks.tower(params.question_tower, question)
        return retrieval.exact_top_k(queries, knowledge.vectors, num_docs)[1]

    return jax.jit(search)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`, so that few batch sizes are compiled."""
    return 1 << max(0, count - 1).bit_length()
