"""Training examples: the files of a mixture as tokens, and the order in which they are drawn.

What a batch consists of is drawn by a grain iterator, a pure function of the seed. Each file goes through shuffled
epochs of its own, and gives its share of every stretch of the stream, whatever its size. `get_state` and `set_state`
resume it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grain
import numpy as np

from rag_jax.config.instruction import InstructionConfig
from rag_jax.data import conversations, questions, system_prompts
from rag_jax.data.chats import ChatTokenizer, Example
from rag_jax.data.stream import NO_THREADS
from rag_jax.errors import InputError
from rag_jax.instruction.asking import Asking
from rag_jax.pipeline.components import GeneratorBundle

Variants = list[Example]
"""The ways in which a conversation or a question may be learnt, of which each epoch draws one."""


@dataclass(frozen=True)
class File:
    """A file as examples."""

    path: Path
    format: str
    items: list[Variants]


@dataclass(frozen=True)
class Mixture:
    """Files and their weights."""

    files: list[File]
    weights: tuple[float, ...]

    @cached_property
    def examples(self) -> list[Example]:
        """All examples, in the order of the files."""
        return [example for file in self.files for variants in file.items for example in variants]


@dataclass(frozen=True)
class Reader:
    """Reads files as examples for a generator."""

    config: InstructionConfig
    generator: GeneratorBundle

    def train(self) -> Mixture:
        """The training files. Raises `InputError` as `read`, and where none is named."""
        named = self.config.data.train
        if not named:
            raise InputError("data.train names no files; give one at least, with its weight")
        return Mixture([self.read(path) for path, _ in named], tuple(weight for _, weight in named))

    def read(self, path: Path, held_out: bool = False) -> File:
        """A file. Raises `InputError` for one that is malformed or has a conversation that is too long.

        Args:
            held_out: ask questions with the best passages and for the first answer only.
        """
        format = conversations.format_of(path)
        if format is not None:
            found = conversations.read_conversations(path, format)
            items, name = [[example] for example in self._chat_tokenizer(found)], format.name
        else:
            name, asked = questions.read_question_file(path)
            items = self._asking(asked, path, held_out)
            name = f"questions ({name}{self._asking.summary(items)})"
        self._check_lengths(path, items)
        return File(path, name, items)

    @cached_property
    def _chat_tokenizer(self) -> ChatTokenizer:
        c, settings = self.config.generator, dict(self.generator.tokenizer_settings)
        return ChatTokenizer(self.generator.tokenizer, settings, system_prompts.text(c.system_prompt), c.checkpoint)

    @cached_property
    def _asking(self) -> Asking:
        return Asking(self.config, self.generator)

    def _check_lengths(self, path: Path, items: Sequence[Variants]) -> None:
        longest, limit = [max(variants, key=len) for variants in items], self.config.generator.max_length
        long = [example for example in longest if len(example) > limit]
        if long:
            what = f"{len(long):,} of {len(items):,} conversations have more than {limit} tokens"
            first = f"the first at {long[0].location}: {len(long[0]):,}"
            raise InputError(f"{path}: {what} ({first}); raise generator.max_length, or remove them")


def draws(mixture: Mixture, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Yield the numbers `[B]` of the examples of each batch, endlessly."""
    sources, start = [], 0
    for number, file in enumerate(mixture.files):
        sizes = np.asarray([len(variants) for variants in file.items])
        starts = start + np.cumsum(sizes) - sizes
        start += int(sizes.sum())

        def one(item: int, rng: np.random.Generator, starts=starts, sizes=sizes) -> int:
            return int(starts[item] + rng.integers(sizes[item]))

        own = np.random.SeedSequence((seed, number)).generate_state(1)[0]
        order = grain.MapDataset.range(len(file.items)).seed(int(own)).shuffle().repeat()
        sources.append(order.random_map(one))
    mixed = grain.MapDataset.mix(sources, list(mixture.weights))
    return iter(mixed.batch(batch_size).to_iter_dataset(NO_THREADS))
