"""The facade: questions in, answers with their passages out. Nothing is possible only through it.

rag = RAG.from_workdir("runs/demo")
rag = RAG.from_pretrained("facebook/rag-token-nq", index="path/to/index")
rag = RAG.from_networks("facebook/dpr-question_encoder-single-nq-base", "facebook/bart-large", index="path/to/index")
rag.answer(["What is the population of Bombay?"])
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from rag_jax import hub
from rag_jax.config.generation import ConstraintTokens, GenerationConfig
from rag_jax.core.decode.decoding import Answered
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.variants import Model
from rag_jax.corpus.passage import Passage
from rag_jax.data import validation
from rag_jax.data.batches import Examples, in_order, tokenize
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError, warn
from rag_jax.index import documents
from rag_jax.index.building import checked
from rag_jax.index.store import Store, from_vectors
from rag_jax.pipeline import pretrained, programs, user_inputs
from rag_jax.pipeline.answers import Answer, to_answers
from rag_jax.pipeline.assembly import check_width, compose, open_index
from rag_jax.pipeline.components import Components, token_id
from rag_jax.pipeline.host_retrieval import RetrievalInputs, knowledge_subset
from rag_jax.pipeline.trained import load_trained
from rag_jax.types import Batch, InferenceBatch, Knowledge, RagParams, SearchResults, Tokens, host


@dataclass(frozen=True, eq=False)
class RAG:
    """A trained model with its knowledge. Frozen: whatever changes it returns another one."""

    components: Components
    params: RagParams

    def __repr__(self) -> str:
        c, held = (
            self.components.config,
            "closed book" if self.components.store.is_closed_book else repr(self.components.store),
        )
        return f"RAG({c.model}, tower {c.retriever.tower}, K = {self.components.num_docs}, {held})"

    @classmethod
    def from_workdir(cls, workdir: str | Path, index: str | Path | None = None) -> "RAG":
        """The model that `train.py` left in a workdir, at its newest checkpoint, over its own `index` or another.

        Where there are not as many devices as it was trained on, it is put on one. Raises `InputError` where there is
        none.
        """
        return cls(*load_trained(Path(workdir), _path(index)))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        index: str | Path | None = None,
        *,
        revision: str | None = None,
        passage_tower: str | Path | None = None,
        model: Model | None = None,
    ) -> "RAG":
        """A RAG checkpoint of the Hugging Face ecosystem: a folder, or a repository of the hub at a `revision`.

        `index` is a knowledge store of this library, or a folder that `rag_jax.index.importers` reads; without one
        the model is asked closed book. RAG checkpoints lack their passage tower: name it where passages are to be
        encoded. `model` overrides what the checkpoint's config says. Raises `InputError` for what cannot be loaded.
        """
        source = f"{source}@{revision}" if revision else str(source)
        tower = None if passage_tower is None else str(passage_tower)
        config = pretrained.describe(source, _path(index), passage_tower=tower, model=model)
        components = compose(config)
        return cls(components, components.initial_params)

    @classmethod
    def from_networks(
        cls,
        question_tower: str | Path,
        generator: str | Path,
        index: str | Path | None = None,
        *,
        passage_tower: str | Path | None = None,
        model: Model = "token",
        num_docs: int = 5,
    ) -> "RAG":
        """Towers and a generator that have not met yet, as the paper starts from DPR and BART.

        Sources and `index` are those of `from_pretrained`; a passage tower that is not named is the question tower,
        unless that is one of DPR's. Raises `InputError` for what cannot be loaded.
        """
        tower = None if passage_tower is None else str(passage_tower)
        config = pretrained.unite(
            str(question_tower), str(generator), _path(index), passage_tower=tower, model=model, num_docs=num_docs
        )
        components = compose(config)
        return cls(components, components.initial_params)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the folder that transformers' RagTokenForGeneration or RagSequenceForGeneration loads, tokenizers too.

        The index stays where it is. Raises `InputError` for a folder that holds something.
        """
        hub.save(folder, pretrained.checkpoint(self.components, self.params))

    @property
    def knowledge(self) -> Knowledge:
        """The index on the device, or spread over several."""
        return self.components.knowledge

    def answer(self, questions: Sequence[str], **options: Any) -> list[Answer]:
        """Answers in the order of the questions; see `stream` for the options."""
        return [answer for _, answer in sorted(self.stream(questions, **options), key=_number)]

    def stream(
        self,
        questions: Sequence[str],
        *,
        num_docs: int | None = None,
        prefixes: Sequence[str] | str = "",
        rows: Int[np.ndarray, "B K"] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        skip: Collection[int] = (),
        **decoding: Any,
    ) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of every question, a batch at a time: questions of like length come together.

        `decoding` are the fields of `Decoding`; those not given are as in the model's config. `num_docs` is K, as in
        training unless given. `prefixes` are beginnings that the answers must have, one for all or one for each
        question. `rows` are passages that another search chose, as rows of the index, -1 for none: they are read
        instead of the nearest. `seed` is for samples. Numbers to `skip` are not answered: they have been before.

        Raises `InputError` for an empty or too long question or prefix, for more passages than the index has, and for
        options that contradict each other.
        """
        c, questions = self.components.config, user_inputs.texts(questions, "questions")
        options, limits, words = self._options(decoding)
        rows = None if rows is None else user_inputs.rows(rows, len(questions), self.components.store.alive)
        k = self._check_num_docs(num_docs) if rows is None else rows.shape[1]
        prefixes = [prefixes] * len(questions) if isinstance(prefixes, str) else user_inputs.texts(prefixes, "prefixes")
        begun = self._begun(prefixes, questions, limits, words)
        fixed = c.generator.max_input, self.components.placement
        program = programs.answering(self.components.networks, c.model, options, limits, words, k, *fixed)
        key = jax.random.key(user_inputs.seed(seed))
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size, skip):
            every = np.resize(chosen, len(batch.question.ids))  # the last batch is filled up with repetitions
            mine = jax.tree.map(lambda each, every=every: each[every], (begun, rows))
            looked = self._look(batch, questions, chosen, k, mine[1])
            inputs = InferenceBatch(batch.question, batch.prompt)
            answered = program(self._placed, looked.knowledge, inputs, mine[0], looked.search_results, key, every)
            yield from self._readable(answered, chosen, looked)

    def choose(self, questions: Sequence[str], labels: Sequence[str], **options: Any) -> list[Answer]:
        """Of some labels the likeliest for each question, marginalised over the passages; the rest are `alternatives`.

        This classifies (FEVER's labels) and answers multiple choice; see `stream_choices` for the options.
        """
        return [answer for _, answer in sorted(self.stream_choices(questions, labels, **options), key=_number)]

    def stream_choices(
        self,
        questions: Sequence[str],
        labels: Sequence[str],
        *,
        num_docs: int | None = None,
        batch_size: int = 64,
        skip: Collection[int] = (),
    ) -> Iterator[tuple[int, Answer]]:
        """(number, chosen label) of every question, a batch at a time, as `stream`.

        Raises `InputError` as `stream` does, and where there are fewer than two labels or one is too long.
        """
        vocabulary, c = self.components.generator_tokenizer, self.components.config
        questions, labels = user_inputs.texts(questions, "questions"), user_inputs.texts(labels, "labels")
        limits = self.components.limits._replace(
            decoder_start=(vocabulary.decoder_start,)
        )  # as in training, wherever decoding starts from
        targets = vocabulary.targets(labels)
        if len(set(map(tuple, targets))) < max(2, len(labels)):
            raise InputError(f"labels {list(labels)}; give two or more, all different")
        for label, target in zip(labels, targets, strict=True):
            if len(target) > limits.max_length:
                raise InputError(
                    f"label {label!r} has {len(target)} tokens, more than max_target = {limits.max_length}"
                )
        k = self._check_num_docs(num_docs)
        fixed = c.generator.max_input, self.components.placement
        program = programs.choosing(self.components.networks, c.model, limits, k, *fixed)
        padded = pad(targets, max(map(len, targets)), limits.eos)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size, skip):
            looked = self._look(batch, questions, chosen, k)
            inputs = InferenceBatch(batch.question, batch.prompt)
            answered = program(self._placed, looked.knowledge, inputs, padded, looked.search_results)
            yield from self._readable(answered, chosen, looked)

    def log_likelihood(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> Float[np.ndarray, " B"]:
        """`log p(y|x)` in nats of one given answer for each question, marginalised over the K passages."""
        questions, answers = user_inputs.texts(questions, "questions"), user_inputs.texts(answers, "answers")
        if len(questions) != len(answers):
            raise InputError(f"{len(questions)} questions and {len(answers)} answers; give one answer for each")
        c, k = self.components.config, self._check_num_docs(num_docs)
        fixed = c.generator.max_input, self.components.placement
        program = programs.scoring(self.components.networks, c.model, k, *fixed)
        found = np.zeros(len(questions), np.float32)
        for batch, chosen in self._batches(questions, answers, batch_size):
            looked = self._look(batch, questions, chosen, k)
            scored = np.asarray(program(self._placed, looked.knowledge, batch, looked.search_results))[: len(chosen)]
            _check_numbers(chosen, np.isnan(scored))
            found[chosen] = scored
        return found

    def search(self, questions: Sequence[str], k: int, *, batch_size: int = 64) -> Int[np.ndarray, "B K"]:
        """The rows of the k best passages for each question, best first; -1 where there are fewer."""
        questions, fixed = (
            user_inputs.texts(questions, "questions"),
            (self._check_num_docs(k), self.components.placement),
        )
        program = programs.searching(self.components.networks, *fixed)
        rows = np.zeros((len(questions), k), np.int32)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            if self.components.host_search is None:
                found = program(self._placed, self.knowledge, batch.question).rows
            else:
                found = self._look(batch, questions, chosen, k).rows
            rows[chosen] = np.asarray(found)[: len(chosen)]
        return rows

    def encode(self, questions: Sequence[str], *, batch_size: int = 64) -> Float[np.ndarray, "B D"]:
        """`q(x)`: the vectors that the questions are searched by."""
        questions = user_inputs.texts(questions, "questions")
        program = programs.encoding(self.components.networks, self.components.placement)
        vectors = np.zeros((len(questions), 0), np.float32)
        for batch, chosen in self._batches(questions, ["-"] * len(questions), batch_size):
            found = np.asarray(program(self._placed, batch.question), np.float32)[: len(chosen)]
            if not vectors.shape[1]:
                vectors = np.zeros((len(questions), found.shape[1]), np.float32)
            vectors[chosen] = found
        return vectors

    def check(self, questions: Sequence[Question], *, num_docs: int | None = None, **decoding: Any) -> int:
        """Whether `answer` can answer these, before anything is compiled: how many of them would be cut.

        Raises `InputError` for options that are none, and for a question that is too long, which its id names.
        """
        self._options(decoding)
        self._check_num_docs(num_docs)
        return self._tokenized([(question, "-") for question in questions]).cut

    def with_long_questions(self, what: Literal["refuse", "cut"]) -> "RAG":
        """The same model, which refuses questions of more tokens than max_question, or cuts them and warns."""
        config = self.components.config
        changed = replace(config, data=replace(config.data, long_questions=what))
        return replace(self, components=replace(self.components, config=changed))

    def with_passage(self, changed: Passage) -> "RAG":
        """The same model with one document of its index rewritten, found by its id: no training, no new compilation.

        All pieces that it was cut into make way; a piece that is given by its own id takes the place of that piece.
        """
        store = self.components.store
        rows, new = documents.replaced(store.passages, store.alive, user_inputs.passages([changed]), "the index")
        return self.with_index(store.without(rows.tolist()).added(self._encoded(new)))

    def with_passages(self, passages: Iterable[Passage]) -> "RAG":
        """The same model over passages that the passage tower encodes now, in memory.

        Raises `InputError` for one without a text, and for an id that occurs twice.
        """
        return self.with_index(self._encoded(user_inputs.passages(passages)))

    def and_passages(self, passages: Iterable[Passage]) -> "RAG":
        """The same model with more passages, encoded now, in memory; see `rag_jax.index.updates` for stores on disk.

        Raises `InputError` for an id that is there already.
        """
        store, more = self.components.store, user_inputs.passages(passages)
        documents.check_new(store.passages, store.alive, more, "the index")
        return self.with_index(store.added(self._encoded(more)))

    def without(self, ids: Sequence[str]) -> "RAG":
        """The same model without some documents of its index, all their pieces, or single pieces, in memory.

        Raises `InputError` for an id not there.
        """
        store = self.components.store
        rows = documents.named(store.passages, store.alive, user_inputs.ids(ids, "ids"), "the index")
        return self.with_index(store.without(rows.tolist()))

    def with_index(self, index: str | Path | Store) -> "RAG":
        """The same model over another index (the paper's hot-swap): an opened store, or a path as `from_pretrained`'s.

        Raises `InputError` for one that is missing, damaged, of another width or made by another tower.
        """
        components = self.components
        if isinstance(index, Store):
            return replace(
                self, components=replace(components, store=check_width(index, components.bi_encoder, "the store"))
            )
        config = pretrained.over(components.config, Path(index))
        store = open_index(Path(index), config, components.bi_encoder, components.generator)
        return replace(self, components=replace(components, config=config, store=store))

    def _options(self, decoding: dict[str, Any]) -> tuple[GenerationConfig, GenerationLimits, ConstraintTokens]:
        """The config's way of decoding with some options changed, and what it comes to with this generator."""
        options = validation.validate_dataclass(GenerationConfig, {**vars(self.components.config.decoding), **decoding})
        limits = options.limits(self.components.config.model, self.components.limits)
        return options, limits, self._words(options)

    def _words(self, options: GenerationConfig) -> ConstraintTokens:
        bad = tuple(tuple(word) for word in self.components.generator_tokenizer.prefixes(options.bad_words))
        if not all(bad):
            raise InputError(f"bad_words {list(options.bad_words)}: one is empty; leave it out")
        forced = options.forced_bos
        return ConstraintTokens(
            bad, None if forced is None else token_id(self.components.generator_tokenizer, forced, "forced_bos")
        )

    def _check_num_docs(self, num_docs: int | None) -> int:
        k = self.components.num_docs if num_docs is None else validation.validate_value(int, num_docs, "num_docs")
        held = len(self.components.store)
        if not 1 <= k <= held:
            raise InputError(f"cannot read {k} of {held} passages; ask for 1 to {held}")
        return k

    def _begun(
        self, prefixes: Sequence[str], questions: Sequence[str], limits: GenerationLimits, words: ConstraintTokens
    ) -> Tokens:
        """The prefixes as tokens, padded to a few widths; a forced start is before them."""
        if len(prefixes) != len(questions):
            raise InputError(f"{len(prefixes)} prefixes for {len(questions)} questions; give one for all, or for each")
        first = [] if words.forced_bos is None else [words.forced_bos]
        given = [[*first, *each] if each else [] for each in self.components.generator_tokenizer.prefixes(prefixes)]
        longest = max(map(len, given), default=0)
        if longest >= limits.max_length:
            room = f"an answer has max_length = {limits.max_length}"
            raise InputError(f"a prefix has {longest} tokens, {room}; shorten it to {limits.max_length - 1} at most")
        width = min(_power_of_two(longest), limits.max_length - 1) if longest else 0
        return pad(given, width, limits.eos)

    def _batches(
        self, questions: Sequence[str], answers: Sequence[str], batch_size: int, skip: Collection[int] = ()
    ) -> Iterator[tuple[Batch, Int[np.ndarray, " b"]]]:
        user_inputs.count(batch_size, "batch_size")
        if not questions:
            return iter(())
        for number, question in enumerate(questions, 1):
            if not question.strip():
                raise InputError(f"question {number} is empty; write one")
        asked = [Question(str(number), question, ()) for number, question in enumerate(questions, 1)]
        examples = self._tokenized(list(zip(asked, answers, strict=True)))
        if examples.cut:
            warn(f"{examples.cut} of {len(questions)} questions are cut to {self.components.question_length} tokens")
        return in_order(
            examples, self.components.generator_tokenizer, min(batch_size, _power_of_two(len(questions))), skip
        )

    def _tokenized(self, pairs: Sequence[tuple[Question, str]]) -> Examples:
        c = self.components.config
        return tokenize(
            pairs,
            self.components.bi_encoder.question_tokenizer,
            self.components.generator_tokenizer,
            {},
            max_question=c.retriever.max_question,
            max_target=c.generator.max_target,
            ladder=self.components.length_buckets,
            from_tower=c.generator.question_from_tower,
            cut=c.data.long_questions == "cut",
        )

    @cached_property
    def _placed(self) -> RagParams:
        """Parameters that a mesh has already stay as they are spread."""
        return self.components.placement.everywhere(self.params)

    def _look(
        self,
        batch: Batch,
        questions: Sequence[str],
        chosen: Int[np.ndarray, " b"],
        k: int,
        rows: Int[np.ndarray, "B K"] | None = None,
    ) -> RetrievalInputs:
        """What a batch is to read: passages given by their `rows`, those that the host found, or the program's own."""
        outside = self.components.host_search
        if outside is None:
            return RetrievalInputs(self.knowledge, None if rows is None else SearchResults(host(rows), None), None)
        if rows is not None:
            return knowledge_subset(self.components.store, rows, None)
        vectors = programs.encoding(self.components.networks, self.components.placement)(self._placed, batch.question)
        texts = [questions[int(number)] for number in np.resize(chosen, len(batch.question.ids))]
        return outside(texts, np.asarray(vectors), k)

    def _encoded(self, passages: list[Passage]) -> Store:
        encoder = self.components.bi_encoder.required_passage_encoder
        vectors, cut = encoder.encode_and_count(passages)
        store = from_vectors(passages, checked(vectors, passages), self.components.passage_tokenizer)
        cut.warn("tower", encoder.max_length)
        store.truncated.warn("generator", self.components.passage_tokenizer.max_length)
        return store

    def _readable(
        self, answered: Answered, chosen: Int[np.ndarray, " b"], looked: RetrievalInputs
    ) -> Iterator[tuple[int, Answer]]:
        seen = looked.with_store_rows(jax.device_get(answered))
        prior, exists = np.asarray(seen.doc_log_prior), np.asarray(seen.decoded.exists)
        none = ~exists.any(axis=1) & np.isfinite(prior).any(axis=1)  # though there is something to read
        odd = none | np.isnan(prior).any(axis=1) | np.isnan(seen.decoded.log_prob).any(axis=1)
        _check_numbers(chosen, np.asarray(odd))
        found = to_answers(seen, len(chosen), self.components.store, self.components.generator_tokenizer)
        return zip(chosen.tolist(), found, strict=True)


def _check_numbers(chosen: Int[np.ndarray, " b"], odd: Bool[np.ndarray, " B"]) -> None:
    """Refuse to go on where one of the `chosen` questions is `odd`: it has no log-probability."""
    if odd[: len(chosen)].any():
        remedy = "look for NaN or infinity in the model's weights and the index's vectors"
        raise InputError(f"question {chosen[int(np.argmax(odd))] + 1}: no answer has a log-probability; {remedy}")


def _number(answered: tuple[int, Answer]) -> int:
    return answered[0]


def _path(index: str | Path | None) -> Path | None:
    return None if index is None else Path(index)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`, so that few batch sizes are compiled."""
    return 1 << max(0, count - 1).bit_length()
