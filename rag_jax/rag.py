"""The facade: questions in, answers with their passages out. Everything it does can be done without it.

rag = RAG.from_workdir("runs/demo")
rag = RAG.from_pretrained("facebook/rag-token-nq", index="path/to/index")
rag = RAG.from_networks("facebook/dpr-question_encoder-single-nq-base", "facebook/bart-large", index="path/to/index")
rag.answer("What is the population of Lyon?", num_beams=4)
rag.search("population of Lyon", k=5)
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar, Unpack, overload

import numpy as np
from jaxtyping import Float, Int

from rag_jax import hub
from rag_jax.config.generation import GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.index.store import Store
from rag_jax.pipeline import edits, generation, pretrained, user_inputs
from rag_jax.pipeline.answers import Answer, SearchResult, to_search_results
from rag_jax.pipeline.assembly import compose
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.inference import Inference
from rag_jax.pipeline.opened_index import fitted, open_index
from rag_jax.pipeline.options import AnswerOptions, GenerationOptions, PromptOptions
from rag_jax.pipeline.prompt import change_prompt
from rag_jax.pipeline.question_batches import AT_ONCE
from rag_jax.pipeline.trained import load_trained
from rag_jax.types import Knowledge, RagParams

T = TypeVar("T")
# A string is a sequence of strings to a type checker, so that the overloads below overlap by design.


@dataclass(frozen=True, eq=False)
class RAG:
    """A trained model with its index. Immutable: methods that change something return another model."""

    components: Components
    params: RagParams

    def __repr__(self) -> str:
        config, store = self.components.config, self.components.store
        index = "closed book" if store.is_closed_book else repr(store)
        return f"RAG({config.model}, tower {config.retriever.tower}, K = {self.components.num_docs}, {index})"

    @classmethod
    def from_workdir(cls, workdir: str | Path, index: str | Path | None = None) -> "RAG":
        """The newest checkpoint of a training run, over the run's own index or another.

        Runs on one device where there are fewer than in training. Raises `InputError` without a checkpoint.
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
        adapter: str | Path | None = None,
        model: Model | None = None,
    ) -> "RAG":
        """A RAG checkpoint of the Hugging Face ecosystem. Raises `InputError` for what cannot be loaded.

        Args:
            source: a folder, or a repository of the hub.
            index: a store of this library, or a folder that `rag_jax.index.importers` reads; None: closed book.
            revision: of the repository.
            passage_tower: encodes new passages; RAG checkpoints do not contain it.
            adapter: a LoRA adapter of the generator in peft's layout, merged into its weights.
            model: "token", "sequence" or "fid", instead of what the checkpoint's config says.
        """
        source = f"{source}@{revision}" if revision else str(source)
        config = pretrained.describe(source, passage_tower=_source(passage_tower), model=model)
        components = compose(pretrained.with_adapter(config, _source(adapter)), _path(index))
        return cls(components, components.initial_params)

    @classmethod
    def from_networks(
        cls,
        question_tower: str | Path,
        generator: str | Path,
        index: str | Path | None = None,
        *,
        passage_tower: str | Path | None = None,
        adapter: str | Path | None = None,
        model: Model = "token",
        num_docs: int = 5,
    ) -> "RAG":
        """Separately pretrained encoders and a generator, as the paper starts from DPR and BART.

        Args:
            question_tower, generator, index, adapter: as in `from_pretrained`. Vectors have the norm and the width of
                the index's.
            passage_tower: None: the question tower, unless that is one of DPR's.
            model: "token", "sequence" or "fid".
            num_docs: K, the passages to read.
        """
        networks, tower, folder = (str(question_tower), str(generator)), _source(passage_tower), _path(index)
        config = pretrained.combine(*networks, folder, passage_tower=tower, model=model, num_docs=num_docs)
        components = compose(pretrained.with_adapter(config, _source(adapter)), folder)
        return cls(components, components.initial_params)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers' RagTokenForGeneration or RagSequenceForGeneration loads, with tokenizers.

        The index is not written. Raises `InputError` for a folder that is not empty.
        """
        hub.save(folder, pretrained.checkpoint(self.components, self.params))

    @property
    def knowledge(self) -> Knowledge:
        """The index on the device, or sharded over several."""
        return self.components.knowledge

    @overload
    def answer(  # pyright: ignore[reportOverlappingOverload]
        self, questions: str, config: GenerationConfig | None = None, **options: Unpack[AnswerOptions]
    ) -> Answer: ...
    @overload
    def answer(
        self, questions: Sequence[str], config: GenerationConfig | None = None, **options: Unpack[AnswerOptions]
    ) -> list[Answer]: ...
    def answer(self, questions, config=None, **options):
        """Answer one question, or a list of questions in its order.

        Args:
            questions: one string, or several.
            config: how to generate; None: as the model's own config says.
            num_docs: K, the passages to read; None: as in training.
            prefixes: what answers must begin with, one for all or one for each question.
            rows: read these rows of the index instead of searching, [B, K]; -1: none.
            seed: of samples.
            batch_size: questions that are computed at once.
            attention: compute each passage's share of the decoder's attention, `passage.attention` (model fid).
            guard: is called with this model and all arguments instead, see `rag_jax.moderation.guard.Guard`.
            options: these, and the fields of `GenerationConfig` to override, as `num_beams=4`.

        Raises `InputError` for an empty or too long question or prefix, and for invalid options.
        """
        guard, asked = options.pop("guard", None), user_inputs.listed(questions)
        answers = (
            self.stream(asked, config, **options) if guard is None else enumerate(guard(self, asked, config, **options))
        )
        return _one_or_all(questions, answers)

    def stream(
        self,
        questions: Sequence[str],
        config: GenerationConfig | None = None,
        *,
        num_docs: int | None = None,
        prefixes: Sequence[str] | str = "",
        rows: Int[np.ndarray, "B K"] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        attention: bool = False,
        skip: Collection[int] = (),
        **overrides: Unpack[GenerationOptions],
    ) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of every question, a batch at a time, questions of similar length together.

        `skip` holds numbers of questions to leave out; the other arguments are those of `answer`.
        """
        questions, components = user_inputs.questions(questions), self.components
        options = generation.resolve(components, config, overrides)
        checked = None if rows is None else user_inputs.rows(rows, len(questions), components.store.alive)
        prefixes = user_inputs.prefixes(prefixes, len(questions))
        prefix_tokens = generation.prefix_tokens(prefixes, options, components.generator_tokenizer)
        computed = {"num_docs": num_docs, "rows": checked, "seed": user_inputs.seed(seed), "batch_size": batch_size}
        return self._inference.answers(questions, options, prefix_tokens, **computed, attention=attention, skip=skip)

    @overload
    def choose(  # pyright: ignore[reportOverlappingOverload]
        self, questions: str, labels: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> Answer: ...
    @overload
    def choose(
        self, questions: Sequence[str], labels: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> list[Answer]: ...
    def choose(self, questions, labels, **options):
        """The most likely label for one question or for each of a list; the other labels are its `alternatives`.

        Labels are scored by `log p(label|x)`, marginalised over the passages: classification, or multiple choice.
        Raises `InputError` as `answer` does, for fewer than two labels, and for one that is too long.
        """
        return _one_or_all(questions, self.stream_choices(user_inputs.listed(questions), labels, **options))

    def stream_choices(
        self,
        questions: Sequence[str],
        labels: Sequence[str],
        *,
        num_docs: int | None = None,
        batch_size: int = 64,
        skip: Collection[int] = (),
    ) -> Iterator[tuple[int, Answer]]:
        """(number, most likely label) of every question, a batch at a time; see `stream` and `choose`."""
        questions, labels = user_inputs.questions(questions), user_inputs.texts(labels, "labels")
        return self._inference.choices(questions, labels, num_docs=num_docs, batch_size=batch_size, skip=skip)

    @overload
    def log_likelihood(  # pyright: ignore[reportOverlappingOverload]
        self, questions: str, answers: str, *, num_docs: int | None = None, batch_size: int = 64
    ) -> float: ...
    @overload
    def log_likelihood(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> Float[np.ndarray, " B"]: ...
    def log_likelihood(self, questions, answers, *, num_docs=None, batch_size=64):
        """`log p(y|x)` in nats, marginalised over the K passages, of one pair or of each question's own answer."""
        pairs = user_inputs.pairs(questions, answers)
        log_probs = self._inference.log_likelihood(*pairs, num_docs=num_docs, batch_size=batch_size)
        return float(log_probs[0]) if isinstance(questions, str) else log_probs

    @overload
    def attention_mass(  # pyright: ignore[reportOverlappingOverload]
        self, questions: str, answers: str, *, num_docs: int | None = None, batch_size: int = 64
    ) -> Float[np.ndarray, " K"]: ...
    @overload
    def attention_mass(
        self, questions: Sequence[str], answers: Sequence[str], *, num_docs: int | None = None, batch_size: int = 64
    ) -> Float[np.ndarray, "B K"]: ...
    def attention_mass(self, questions, answers, *, num_docs=None, batch_size=64):
        """Which passages an answer of Fusion-in-Decoder rests on: the mass of the decoder's cross-attention on each.

        It is the mean over heads, layers and the answer's tokens, and sums to 1 over the K passages, which are in the
        order of `search_rows(questions, K)`; 0 where there are fewer. Raises `InputError` for models that do not fuse.
        """
        pairs = user_inputs.pairs(questions, answers)
        mass = self._inference.attention_mass(*pairs, num_docs=num_docs, batch_size=batch_size)
        return mass[0] if isinstance(questions, str) else mass

    @overload
    def search(self, questions: str, k: int = 5, *, batch_size: int = 64) -> list[SearchResult]: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def search(self, questions: Sequence[str], k: int = 5, *, batch_size: int = 64) -> list[list[SearchResult]]: ...
    def search(self, questions, k=5, *, batch_size=64):
        """The k best passages for one question or for each of a list, best first.

        Raises `InputError` for more passages than the index has, and for a closed-book model.
        """
        results = self._inference.search(user_inputs.questions(user_inputs.listed(questions)), k, batch_size=batch_size)
        passages = to_search_results(results, self.components.store)
        return passages[0] if isinstance(questions, str) else passages

    def search_rows(self, questions: Sequence[str], k: int, *, batch_size: int = 64) -> Int[np.ndarray, "B K"]:
        """The rows in the index of the k best passages for each question, best first; -1 where there are fewer."""
        return np.asarray(self._inference.search(user_inputs.questions(questions), k, batch_size=batch_size).rows)

    def encode(self, questions: Sequence[str], *, batch_size: int = 64) -> Float[np.ndarray, "B D"]:
        """`q(x)`: the query vectors of the questions."""
        return self._inference.encode(user_inputs.questions(questions), batch_size=batch_size)

    def check(
        self,
        questions: Sequence[Question],
        config: GenerationConfig | None = None,
        *,
        num_docs: int | None = None,
        attention: bool = False,
        **overrides: Unpack[GenerationOptions],
    ) -> int:
        """The number of questions that would be truncated. Compiles nothing.

        Raises `InputError` for invalid options, and for a question that is too long, by its id.
        """
        generation.resolve(self.components, config, overrides)
        self._inference.check_num_docs(num_docs)
        if attention:
            self._inference.check_attention()
        read = self.components.example_tokenizer.questions
        starts = range(0, len(questions), AT_ONCE)
        return sum(read(questions[start : start + AT_ONCE]).num_truncated for start in starts)

    def with_long_questions(self, policy: Literal["refuse", "cut"]) -> "RAG":
        """The same model with another policy for questions of more than max_question tokens; "cut" warns."""
        config = self.components.config
        changed = replace(config, data=replace(config.data, long_questions=policy))
        return replace(self, components=self.components.over_same_index(config=changed))

    def with_prompt(self, **changes: Unpack[PromptOptions]) -> "RAG":
        """The same model with another prompt, as the fields of these names in `rag_jax.config.config.Generator`.

        Args:
            chat: whether passage and question are the user's message in the tokenizer's chat template.
            system_prompt: a text, or a name in `rag_jax.data.system_prompts`; None: without.
            question_template: as " // {question}"; None: as the architecture usually reads it.

        Raises `InputError` for a system prompt or a chat without a decoder-only generator, and for a prompt that is too
        long.
        """
        return replace(self, components=change_prompt(self.components, changes))

    def with_index(self, index: str | Path | Store) -> "RAG":
        """The same model over another index (the paper's index hot-swapping).

        Args:
            index: an opened store, or a path as `from_pretrained` takes it. A store without this generator's tokens
                gets them in memory.

        Raises `InputError` for one that is missing or damaged, of another width, or built by another tower.
        """
        components = self.components
        folder = index.folder if isinstance(index, Store) else Path(index)
        if folder is not None:
            config = pretrained.with_index(components.config, folder)
            config = pretrained.with_length_of_index(config, components.generator_tokenizer)
            bi_encoder = components.bi_encoder
            if config.retriever != components.config.retriever:
                bi_encoder = bi_encoder.reading_as(config.retriever)
            components = replace(components, config=config, bi_encoder=bi_encoder)
        if isinstance(index, Store):
            store = fitted(index, components.bi_encoder, components.passage_tokenizer)
        else:
            store = open_index(Path(index), components.config, components.bi_encoder, components.generator)
        return replace(self, components=components.with_store(store))

    def with_passages(self, passages: Iterable[Passage]) -> "RAG":
        """The same model over these passages alone, encoded now and kept in memory.

        Raises `InputError` for a passage without a text, and for an id that occurs twice.
        """
        return self.with_index(edits.encode_passages(self.components, passages))

    def add_passages(self, passages: Iterable[Passage]) -> "RAG":
        """The same model with more passages, in memory. Raises `InputError` for an id that is there already."""
        return self.with_index(edits.add_passages(self.components, passages))

    def replace_passage(self, passage: Passage) -> "RAG":
        """The same model with one document rewritten, in memory: no training, no compilation.

        All chunks of the document of that id are replaced, or the one chunk that has it as its own id.
        """
        return self.with_index(edits.replace_passage(self.components, passage))

    def remove_passages(self, ids: Sequence[str]) -> "RAG":
        """The same model without some documents or chunks, in memory. Raises `InputError` for an unknown id."""
        return replace(self, components=edits.remove_passages(self.components, ids))

    @cached_property
    def _inference(self) -> Inference:
        return Inference(self.components, self.components.placement.replicate(self.params))


def _one_or_all(questions: object, numbered: Iterator[tuple[int, T]]) -> T | list[T]:
    results = [result for _, result in sorted(numbered, key=lambda each: each[0])]
    return results[0] if isinstance(questions, str) else results


def _path(index: str | Path | None) -> Path | None:
    return None if index is None else Path(index)


def _source(tower: str | Path | None) -> str | None:
    return None if tower is None else str(tower)
