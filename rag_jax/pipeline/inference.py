"""Inference: batches of questions through the compiled programs, with retrieval inside them or on the host."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from rag_jax.core.decode.decoding import Answered
from rag_jax.core.reading import InputLayout
from rag_jax.core.variants import VARIANTS
from rag_jax.data import validation
from rag_jax.errors import InputError
from rag_jax.index.placement import Placement
from rag_jax.pipeline import programs
from rag_jax.pipeline.answers import Answer, to_answers
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.generation import Generation, label_tokens
from rag_jax.pipeline.host_retrieval import HostSearch, RetrievalInputs
from rag_jax.pipeline.question_batches import QuestionBatch, in_question_order, question_batches, target_batches
from rag_jax.types import RagParams, SearchResults, Tokens, host


@dataclass(frozen=True, eq=False)
class Inference:
    """A model ready to be asked. Questions are checked texts; results are numbered by the questions' order."""

    components: Components
    params: RagParams  # on the devices

    def answers(
        self,
        questions: Sequence[str],
        generation: Generation,
        prefixes: Tokens,
        *,
        num_docs: int | None,
        rows: Int[np.ndarray, "B K"] | None,
        seed: int,
        batch_size: int,
        attention: bool,
        skip: Collection[int],
    ) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of each question, a batch at a time; with `rows`, those passages are read."""
        if rows is not None:
            self.check_rows()
            if num_docs is not None and num_docs != rows.shape[1]:
                raise InputError(f"num_docs is {num_docs}, rows name {rows.shape[1]} passages; leave num_docs out")
        k = self.check_num_docs(num_docs) if rows is None else rows.shape[1]
        model = self.components.config.model
        if attention:
            self.check_attention()
        settings = *generation, k, *self._program_settings, attention
        program = programs.answering(self.components.networks, model, *settings)
        key = jax.random.key(seed)

        def answered() -> Iterator[tuple[int, Answer]]:
            for batch in question_batches(self.components, questions, batch_size, skip=skip):
                prefix = Tokens(prefixes.ids[batch.numbers], prefixes.lengths[batch.numbers])
                retrieval = self._retrieve(batch, k, None if rows is None else rows[batch.numbers])
                inputs = batch.inputs, prefix, retrieval.search_results
                yield from self._read_back(
                    batch, retrieval, program(self.params, retrieval.knowledge, *inputs, key, batch.numbers)
                )

        return answered()

    def choices(
        self,
        questions: Sequence[str],
        labels: Sequence[str],
        *,
        num_docs: int | None,
        batch_size: int,
        skip: Collection[int],
    ) -> Iterator[tuple[int, Answer]]:
        """(number, ranked labels) of each question, a batch at a time."""
        k, tokenizer = self.check_num_docs(num_docs), self.components.generator_tokenizer
        # Labels are scored as targets are in training, whichever token generation starts from.
        limits = self.components.limits._replace(decoder_start=(tokenizer.decoder_start,))
        targets = label_tokens(labels, limits, tokenizer)
        model = self.components.config.model
        program = programs.choosing(self.components.networks, model, limits, k, *self._program_settings)

        def chosen() -> Iterator[tuple[int, Answer]]:
            for batch in question_batches(self.components, questions, batch_size, skip=skip):
                retrieval = self._retrieve(batch, k)
                inputs = batch.inputs, targets, retrieval.search_results
                yield from self._read_back(batch, retrieval, program(self.params, retrieval.knowledge, *inputs))

        return chosen()

    def log_likelihood(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None, batch_size: int
    ) -> Float[np.ndarray, " B"]:
        """`log p(y|x)` in nats of each question's own answer."""
        k = self.check_num_docs(num_docs)
        model = self.components.config.model
        program = programs.scoring(self.components.networks, model, k, *self._program_settings)

        def scored() -> Iterator[tuple[QuestionBatch, np.ndarray]]:
            for batch, examples in target_batches(self.components, questions, answers, batch_size):
                retrieval = self._retrieve(batch, k)
                log_probs = program(self.params, retrieval.knowledge, examples, retrieval.search_results)
                batch.check_log_probs(np.isnan(log_probs))
                yield batch, np.asarray(log_probs)

        return in_question_order(scored()) if questions else np.zeros(0, np.float32)

    def attention_mass(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None, batch_size: int
    ) -> Float[np.ndarray, "B K"]:
        """The share of the attention that each passage gets under each question's own answer, best passage first."""
        self.check_attention()
        k = self.check_num_docs(num_docs)
        program = programs.attending(self.components.networks, k, *self._program_settings)

        def measured() -> Iterator[tuple[QuestionBatch, np.ndarray]]:
            for batch, examples in target_batches(self.components, questions, answers, batch_size):
                retrieval = self._retrieve(batch, k)
                mass = np.asarray(program(self.params, retrieval.knowledge, examples, retrieval.search_results))
                batch.check_log_probs(np.asarray(np.isnan(mass).any(axis=1)))
                # A question without search results reads an empty passage, which none of its K passages is.
                yield batch, mass if retrieval.rows is None else np.where(retrieval.rows < 0, np.float32(0), mass)

        return in_question_order(measured()) if questions else np.zeros((0, k), np.float32)

    def search(self, questions: Sequence[str], k: int, *, batch_size: int) -> SearchResults:
        """The rows and scores `[B, K]` of the nearest passages, best first; row -1 where there are fewer."""
        if self.components.store.is_closed_book:
            raise InputError("a closed-book model has no passages to search; give it an index, RAG.with_index")
        self.check_num_docs(k)
        batches = question_batches(self.components, questions, batch_size)
        if not questions:
            return SearchResults(host(np.zeros((0, k), np.int32)), host(np.zeros((0, k), np.float32)))
        return in_question_order((batch, self._search(batch, k)) for batch in batches)

    def encode(self, questions: Sequence[str], *, batch_size: int) -> Float[np.ndarray, "B D"]:
        """`q(x)` of each question."""
        batches = question_batches(self.components, questions, batch_size)
        vectors = ((batch, np.asarray(self._encode(batch), np.float32)) for batch in batches)
        return in_question_order(vectors) if questions else np.zeros((0, self.components.store.width), np.float32)

    def check_num_docs(self, num_docs: int | None) -> int:
        """K: as given, or as in training. Raises `InputError` for more than the index has."""
        k = self.components.num_docs if num_docs is None else validation.validate_value(int, num_docs, "num_docs")
        size = len(self.components.store)
        if not 1 <= k <= size:
            raise InputError(f"cannot read K = {k} of {size} passages (num_docs); ask for 1 to {size}")
        return k

    def check_rows(self) -> None:
        """Raise `InputError` where rows of another search have no prior, which is the engine's own scores."""
        engine = self.components.host_search
        if engine is not None and engine.is_prior:
            problem = "the prior is the scores of the search engine, which has not searched for them"
            raise InputError(f"rows: {problem}; leave rows out, or take an engine that searches vectors")

    def check_attention(self) -> None:
        """Raise `InputError` for a model whose decoder does not attend to several passages, or does not report it."""
        model = self.components.config.model
        if not VARIANTS[model].fuses:
            fusing = " or ".join(name for name, variant in VARIANTS.items() if variant.fuses)
            remedy = f"its answers have a posterior; only model {fusing} has an attention mass"
            raise InputError(f"model {model} does not attend to its passages together; {remedy}")
        if self.components.store.is_closed_book:
            raise InputError("a closed-book model has no passages to attend to; give it an index, RAG.with_index")
        if self.components.networks.generator.cross_attention is None:
            raise InputError("generator: its network does not report its attention; give it Generator.cross_attention")

    def _search(self, batch: QuestionBatch, k: int) -> SearchResults:
        engine = self.components.host_search
        if engine is not None:
            hits = engine.search(batch.texts, self._vectors(batch, engine), k)
            return SearchResults(host(hits.rows), host(hits.scores))
        program = programs.searching(self.components.networks, k, self.components.placement)
        return program(self.params, self.components.knowledge, batch.inputs.question)

    def _retrieve(self, batch: QuestionBatch, k: int, rows: Int[np.ndarray, "B K"] | None = None) -> RetrievalInputs:
        """What the generator is to read: given `rows`, the host engine's results, or what the program itself finds."""
        engine = self.components.host_search
        if engine is None:
            results = None if rows is None else SearchResults(host(rows), None)
            return RetrievalInputs(self.components.knowledge, results, None)
        if rows is not None:
            return engine.subset(rows, None)
        return engine(batch.texts, self._vectors(batch, engine), k)

    def _vectors(self, batch: QuestionBatch, engine: HostSearch) -> Float[np.ndarray, "B D"] | None:
        """What an engine on the host searches by."""
        return self._encode(batch) if engine.needs_vectors else None

    def _encode(self, batch: QuestionBatch) -> Float[np.ndarray, "B D"]:
        program = programs.encoding(self.components.networks, self.components.placement)
        return np.asarray(program(self.params, batch.inputs.question), np.float32)

    def _read_back(
        self, batch: QuestionBatch, retrieval: RetrievalInputs, answered: Answered
    ) -> Iterator[tuple[int, Answer]]:
        """The answers of a batch with their passages. Raises `InputError` where one has no log-probability."""
        results = retrieval.with_store_rows(jax.device_get(answered))
        prior, exists = np.asarray(results.doc_log_prior), np.asarray(results.decoded.exists)
        has_no_answer = ~exists.any(axis=1) & np.isfinite(prior).any(axis=1)  # though there is something to read
        is_nan = np.isnan(prior).any(axis=1) | np.isnan(np.asarray(results.decoded.log_prob)).any(axis=1)
        batch.check_log_probs(np.asarray(has_no_answer | is_nan))
        store, tokenizer = self.components.store, self.components.generator_tokenizer
        answers = to_answers(results, batch.size, store, tokenizer, self.components.layout.has_posterior)
        return zip(batch.first(batch.numbers).tolist(), answers, strict=True)

    @property
    def _program_settings(self) -> tuple[InputLayout, Placement]:
        """What every program that reads passages is compiled for."""
        layout, place = self.components.layout, self.components.placement
        return layout if place.mesh is None else layout._replace(pack_lengths=()), place
