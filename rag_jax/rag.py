"""The facade: questions in, answers with their passages out. Nothing is possible only through it.

rag = RAG.from_workdir("runs/demo")
rag.answer(["What is the population of Bombay?"])
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from rag_jax.core import decoding, retrieval, training
from rag_jax.core.decoding import Answered
from rag_jax.core.search import Limits
from rag_jax.data.batches import in_order, tokenize
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.store import Store
from rag_jax.run.assembly import OBJECTIVES, Parts, assemble
from rag_jax.run.checkpoints import Checkpoints
from rag_jax.run.config import load
from rag_jax.run.decoders import Decoding
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
    score: float  # the length-normalised one, that beams are ranked by
    passages: list[ReadPassage]
    tokens: list[str]
    token_posteriors: Float[np.ndarray, "K T"]  # p(z|x,y_t,y_<t) for each of `tokens`
    alternatives: "list[Answer]"  # the next best, as many as exist of those asked for


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

    def answer(self, questions: Sequence[str], **options: Any) -> list[Answer]:
        """Answers in the order of the questions; see `stream` for the options."""
        found = dict(self.stream(questions, **options))
        return [found[number] for number in range(len(questions))]

    def stream(
        self,
        questions: Sequence[str],
        *,
        num_docs: int | None = None,
        prefixes: Sequence[str] | str = "",
        rows: Int[np.ndarray, "B K"] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **decoding: Any,
    ) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of every question, a batch at a time: questions of like length come together.

        `decoding` are the fields of `Decoding`, greedy by default. `num_docs` is K, as in training unless given.
        `prefixes` are beginnings that the answers must have, one for all or one for each question. `rows` are passages
        that another search chose, as rows of the index, -1 for none: they are read instead of the nearest. `seed` is
        for samples.

        Raises `InputError` for an empty or too long question or prefix, for more passages than the index has, and for
        options that contradict each other.
        """
        options, c = Decoding(**decoding), self.parts.config
        limits = options.limits(c.model, self.parts.limits)
        k = self._check_num_docs(num_docs) if rows is None else self._check_rows(rows, questions).shape[1]
        bad_words = tuple(tuple(word) for word in self.parts.vocabulary.prefixes(options.bad_words))
        if not all(bad_words):
            raise InputError(f"bad_words {list(options.bad_words)}: one is empty; leave it out")
        given = self._given([prefixes] * len(questions) if isinstance(prefixes, str) else prefixes, questions, limits)
        program = _answering(self.parts.networks, c.model, options, limits, bad_words, k, c.generator.max_input)
        key = jax.random.key(seed)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            every = np.resize(chosen, len(batch.question.ids))  # the last batch is filled up with repetitions
            mine = jax.tree.map(lambda each, every=every: each[every], (given, rows))
            answered = program(self.params, self.knowledge, batch.question, batch.prompt, *mine, key, every)
            yield from zip(chosen.tolist(), self._answers(jax.device_get(answered), len(chosen)), strict=True)

    def choose(
        self, questions: Sequence[str], labels: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> list[Answer]:
        """Of some labels the likeliest for each question, marginalised over the passages; the rest are `alternatives`.

        This classifies (FEVER's labels) and answers multiple choice. Raises `InputError` as `answer` does, and where
        there are fewer than two labels or one is too long.
        """
        limits, c = self.parts.limits, self.parts.config
        targets = self.parts.vocabulary.targets(labels)
        if len(set(map(tuple, targets))) < max(2, len(labels)):
            raise InputError(f"labels {list(labels)}; give two or more, all different")
        for label, target in zip(labels, targets, strict=True):
            if len(target) > limits.max_length:
                raise InputError(
                    f"label {label!r} has {len(target)} tokens, more than max_target = {limits.max_length}"
                )
        program = _choosing(self.parts.networks, c.model, limits, self._check_num_docs(num_docs), c.generator.max_input)
        found: dict[int, Answer] = {}
        padded = pad(targets, limits.max_length, limits.eos)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            answered = program(self.params, self.knowledge, batch.question, batch.prompt, padded)
            found |= zip(chosen.tolist(), self._answers(jax.device_get(answered), len(chosen)), strict=True)
        return [found[number] for number in range(len(questions))]

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

    def _check_rows(self, rows: Int[np.ndarray, "B K"], questions: Sequence[str]) -> Int[np.ndarray, "B K"]:
        held = len(self.parts.store.passages)
        if rows.ndim != 2 or len(rows) != len(questions) or not rows.size:
            raise InputError(f"rows of shape {rows.shape} for {len(questions)} questions; give K rows for each of them")
        if rows.min() < -1 or rows.max() >= held:
            raise InputError(f"rows from {rows.min()} to {rows.max()}, the index has 0 to {held - 1}; -1 is for none")
        return rows

    def _given(self, prefixes: Sequence[str], questions: Sequence[str], limits: Limits) -> Tokens:
        """The prefixes as tokens, padded to a few widths."""
        if len(prefixes) != len(questions):
            raise InputError(f"{len(prefixes)} prefixes for {len(questions)} questions; give one for all, or for each")
        given = self.parts.vocabulary.prefixes(prefixes)
        longest = max(map(len, given), default=0)
        if longest >= limits.max_length:
            room = f"an answer has max_length = {limits.max_length}"
            raise InputError(f"a prefix has {longest} tokens, {room}; shorten it to {limits.max_length - 1} at most")
        width = min(_power_of_two(longest), limits.max_length - 1) if longest else 0
        return pad(given, width, limits.eos)

    def _batches(
        self, questions: Sequence[str], answers: Sequence[str], batch_size: int
    ) -> Iterator[tuple[Batch, Int[np.ndarray, "b"]]]:
        if not questions:
            return iter(())
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

    def _answers(self, found: Answered, count: int) -> list[Answer]:
        """The first `count` questions' answers, each with its alternatives."""
        return [self._answer(jax.tree.map(lambda array, row=row: array[row], found)) for row in range(count)]

    def _answer(self, found: Answered) -> Answer:
        decoded = found.decoded
        ranked = [self._ranked(found, rank) for rank in range(len(decoded.exists)) if decoded.exists[rank] or not rank]
        return ranked[0]._replace(alternatives=ranked[1:])

    def _ranked(self, found: Answered, rank: int) -> Answer:
        decoded = jax.tree.map(lambda array: array[rank], found.decoded)
        ids = decoded.tokens[decoded.mask]
        read = [
            ReadPassage(*self.parts.store.passages[row], log_prior=float(prior), posterior=float(posterior))
            for row, prior, posterior in zip(
                found.retrieved.ids, found.doc_log_prior, decoded.doc_posterior, strict=True
            )
            if row >= 0
        ]
        tokenizer = self.parts.vocabulary.tokenizer
        pieces = [tokenizer.decode([int(i)], skip_special_tokens=False) for i in ids]
        posteriors = np.asarray(decoded.token_doc_posterior)[found.retrieved.ids >= 0, : len(ids)]
        text = self.parts.vocabulary.text(ids)
        return Answer(text, float(decoded.log_prob), float(decoded.score), read, pieces, posteriors, [])


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
def _answering(
    networks: Networks,
    model: str,
    options: Decoding,
    limits: Limits,
    bad_words: tuple[tuple[int, ...], ...],
    num_docs: int,
    max_length: int,
):
    """The compiled program from question tokens to answers: one for each composition, whatever the index holds."""

    def program(params, knowledge, question, prompt, given, rows, key, numbers) -> Answered:
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        decoder = options.decoder(model, limits, bad_words, keys)
        return decoding.answer(
            networks,
            params,
            knowledge,
            question,
            prompt,
            given,
            rows,
            decoder=decoder,
            num_docs=num_docs,
            max_length=max_length,
        )

    return jax.jit(program)


@lru_cache
def _choosing(networks: Networks, model: str, limits: Limits, num_docs: int, max_length: int):
    judge = decoding.by_token if model == "token" else decoding.by_sequence

    def program(params, knowledge, question, prompt, labels) -> Answered:
        batch = question.ids.shape[0]
        answers = jax.tree.map(lambda each: jnp.repeat(each[None], batch, axis=0), labels)
        nothing = Tokens(jnp.zeros((batch, 0), jnp.int32), jnp.zeros(batch, jnp.int32))
        decoder = partial(decoding.choose, answers=answers, judge=judge, limits=limits)
        fixed = {"decoder": decoder, "num_docs": num_docs, "max_length": max_length}
        return decoding.answer(networks, params, knowledge, question, prompt, nothing, **fixed)

    return jax.jit(program)


@lru_cache
def _scoring(networks: Networks, model: str, num_docs: int, max_length: int):
    recipe = training.Recipe(networks, OBJECTIVES[model], optax.identity(), num_docs, max_length)
    return jax.jit(partial(training.eval_step, recipe))


@lru_cache
def _searching(networks: Networks, num_docs: int):
    def search(params: RagParams, knowledge: Knowledge, question: Tokens) -> Array:
        return retrieval.nearest(networks.tower(params.question_tower, question), knowledge, num_docs)

    return jax.jit(search)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`, so that few batch sizes are compiled."""
    return 1 << max(0, count - 1).bit_length()
