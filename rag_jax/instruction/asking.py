"""Questions as training examples: asked as `rag.answer` asks them, with passages or closed book.

The prompt is token for token the one that answering builds (`rag_jax.core.reading.assemble`), and so is the answer the
one that decoding finds: the trained generator is used without any change. For robustness to what retrieval returns
(RA-DIT, Lin et al. 2023) each question has a prompt for each of its retrieved passages, some passages are drawn at
random instead, and where no passage of a prompt holds an answer the response says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from rag_jax.config import config as configs
from rag_jax.config.config import Config
from rag_jax.config.instruction import InstructionConfig
from rag_jax.contrastive.answer_search import AnswerSearch
from rag_jax.contrastive.evaluation import vector_rows
from rag_jax.core import reading
from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.chats import Example
from rag_jax.data.questions import Question, check_targets
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError, warn
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines.engine import Queries
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store, open_store, without_vectors
from rag_jax.models import registry
from rag_jax.pipeline import pretrained, recipes
from rag_jax.pipeline.assembly import load_bi_encoder, required_path
from rag_jax.pipeline.components import BiEncoder, GeneratorBundle
from rag_jax.pipeline.gold_passages import check_gold
from rag_jax.pipeline.host_retrieval import open_engine
from rag_jax.types import Tokens

PROMPTS = 1_024  # assembled at once
EMPTY = Passage("", "", "")  # what a closed book reads, and a question that the search finds nothing for


def answering(config: InstructionConfig) -> Config:
    """The config of a RAG model that answers by the trained generator."""
    c, retriever = config.generator, config.retriever
    generator = configs.Generator(
        checkpoint=c.checkpoint,
        adapter=c.adapter,
        chat=True,
        system_prompt=c.system_prompt,
        passage_template=c.passage_template,
        question_template=c.question_template,
        max_input=c.max_input,
        max_passage=c.max_passage,
        passages_per_prompt=c.passages_per_prompt,
    )
    tower = retriever.tower or ""
    sought = configs.Retriever(
        tower, retriever.passage_tower, num_docs=retriever.num_docs, max_question=retriever.max_question
    )
    found = Config(configs.Data(), sought, generator, compute=config.compute, seed=config.seed)
    return pretrained.with_index(found, config.data.index)


@dataclass(frozen=True)
class Asking:
    """Converts questions with answers to examples, several variants of each."""

    config: InstructionConfig
    generator: GeneratorBundle

    def __call__(self, questions: Sequence[Question], path: Path, held_out: bool) -> list[list[Example]]:
        """The variants of each question: the prompts that it is asked by, each with every answer that is learnt.

        Raises `InputError` for a question without an answer in plain text and for one that is too long.
        """
        check_targets(questions, path)
        self._check_lengths(questions, path)
        read = self._groups(questions, path, held_out) if self.has_passages else [[([EMPTY], True)] for _ in questions]
        count = 1 if held_out or self.config.data.answers == "first" else None
        asked = [
            (question, passages, [answer if holds else self.config.retriever.unanswerable or "" for answer in learnt])
            for question, groups in zip(questions, read, strict=True)
            for learnt in [question.answers[:count]]
            for passages, holds in groups
        ]
        prompts = self.prompts([question.question for question, _, _ in asked], [passages for _, passages, _ in asked])
        variants: dict[str, list[Example]] = {question.id: [] for question in questions}
        for prompt, (question, _, answers) in zip(prompts, asked, strict=True):
            for target in self.generator.tokenizer.targets(answers):
                tokens = np.asarray([*prompt, *target], np.int32)
                learnt = np.arange(len(prompt), len(tokens), dtype=np.int32)
                variants[question.id].append(Example(question.id, f"{path}: question {question.id!r}", tokens, learnt))
        return list(variants.values())

    def summary(self, items: Sequence[Sequence[Example]]) -> str:
        """How many of the prompts have no answer in their passages, for the terminal."""
        if not self.has_passages or self.config.retriever.unanswerable is None:
            return ""
        (nothing,) = self.generator.tokenizer.targets([self.config.retriever.unanswerable])
        found = [each.tokens[each.targets].tolist() == nothing for variants in items for each in variants]
        return f", {np.mean(found):.0%} of the prompts without an answer"

    @property
    def has_passages(self) -> bool:
        """Whether questions are asked with passages; else closed book."""
        return self.config.data.index is not None or self.config.data.passages is not None

    def prompts(self, questions: Sequence[str], passages: Sequence[Sequence[Passage]]) -> list[list[int]]:
        """The prompt of each question with its passages, as many for each, the last token included."""
        tokenizer = self.generator.tokenizer
        config = pretrained.with_length_of_index(answering(self.config), tokenizer)
        layout = recipes.layout(config, tokenizer.header, tokenizer.separator)
        unique = list(dict.fromkeys(passage for group in passages for passage in group))
        place = {passage: row for row, passage in enumerate(unique)}
        ids, lengths, _ = PassageTokenizer(tokenizer, config.generator.max_passage).tokenize(unique)
        rows = np.asarray([[place[passage] for passage in group] for group in passages])
        asked = tokenizer.prompts(questions)
        asked = pad(asked, max(map(len, asked), default=1), tokenizer.pad)
        found: list[list[int]] = []
        for start in range(0, len(rows), PROMPTS):
            some = slice(start, start + PROMPTS)
            read = Tokens(jnp.asarray(ids[rows[some]]), jnp.asarray(lengths[rows[some]]))
            inputs = reading.assemble(read, Tokens(asked.ids[some], asked.lengths[some]), layout)
            for row, length in zip(np.asarray(inputs.ids)[:, 0], np.asarray(inputs.lengths)[:, 0], strict=True):
                found.append([*row[:length].tolist(), tokenizer.decoder_start])
        full = sum(len(prompt) > layout.max_length for prompt in found)  # with the token that starts the answer
        if full and self.has_passages:
            what = f"{full:,} of {len(found):,} prompts fill generator.max_input ({layout.max_length} tokens)"
            warn(f"{what}: their last passage may be cut before the answer that it holds; raise it, or read fewer")
        return found

    def _groups(
        self, questions: Sequence[Question], path: Path, held_out: bool
    ) -> list[list[tuple[list[Passage], bool]]]:
        """The groups of passages that each question is asked with, and whether the response is its answer.

        As in answering, a group of which no passage was found is read only where it is the first.
        """
        store, c = self._store, self.config.retriever
        check_gold(store, questions, f"questions of {path}")
        rows, size = self._search(questions), self.config.generator.passages_per_prompt
        search, rng = AnswerSearch(store.passages), np.random.default_rng(self.config.seed)
        groups = rows[:, : c.num_docs // size * size].reshape(len(questions), -1, size)
        if held_out:
            groups = groups[:, :1]
        else:
            alive = np.flatnonzero(store.alive)
            drawn = rng.choice(alive, groups.shape)
            groups = np.where(rng.random(groups.shape[:2])[:, :, None] < c.irrelevant, drawn, groups)

        def holds(question: Question, group: list[int]) -> bool:
            gold = set(store.find(list(question.positive_ids)).tolist()) if question.positive_ids else set()
            found = [row for row in group if row >= 0]
            return c.unanswerable is None or any(row in gold or search.holds(question, row) for row in found)

        return [
            [
                ([store.passages[row] if row >= 0 else EMPTY for row in group], holds(question, group))
                for number, group in enumerate(own)
                if number == 0 or max(group) >= 0
            ]
            for question, own in zip(questions, groups.tolist(), strict=True)
        ]

    def _search(self, questions: Sequence[Question]) -> Int[np.ndarray, "B K"]:
        """The rows of the retrieved passages, best first."""
        texts, k = [question.question for question in questions], self.config.retriever.num_docs
        tower = self._bi_encoder
        if tower is None:
            return open_engine("bm25", self._store, Placement()).search(Queries(texts, None), k).rows
        longest = min(self.config.retriever.max_question, tower.config.max_positions)
        encoder = TextEncoder(registry.tower(tower.config), tower.params, tower.tokenizer, longest)
        return vector_rows(self._store, encoder.encode(tower.question_tokenizer(texts).ids), k)

    @cached_property
    def _bi_encoder(self) -> BiEncoder | None:
        c = self.config.retriever
        if c.tower is None:
            return None
        index = required_path(self.config.data.index, "data.index")
        generator = self.config.generator.checkpoint
        return load_bi_encoder(pretrained.combine(c.tower, generator, index, passage_tower=c.passage_tower))

    @cached_property
    def _store(self) -> Store:
        data, k = self.config.data, self.config.retriever.num_docs
        if data.index is not None:
            tower = self._bi_encoder
            store = open_store(data.index, None if tower is None else tower.passage_encoder, None)
        else:
            assert data.passages is not None
            store = without_vectors(list(read_passages(data.passages, data.passage_words)))
        if k > len(store):
            raise InputError(f"retriever.num_docs is {k}, there are {len(store)} passages; give as many at most")
        return store

    def _check_lengths(self, questions: Sequence[Question], path: Path) -> None:
        tokenizer, limit = self.generator.tokenizer, self.config.retriever.max_question
        room = self.config.generator.max_input - len(tokenizer.header)
        for question, prompt in zip(questions, tokenizer.prompts([each.question for each in questions]), strict=True):
            if len(prompt) > min(limit, room):
                what = f"question {question.id!r} has {len(prompt)} tokens, retriever.max_question is {limit}"
                raise InputError(f"{path}: {what}, and generator.max_input leaves {room}; raise them, or remove it")
