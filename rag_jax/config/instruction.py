"""The config of instruction tuning, as frozen dataclasses.

A config file ends with `config = InstructionConfig(...)`; `rag-jax train` runs it like any other config.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rag_jax.config.config import AdamW, Compute, Lora, Mesh, Watch
from rag_jax.data.validation import Validated


@dataclass(frozen=True)
class Data(Validated):
    """The files of a run."""

    # training files, each with the weight of its conversations in the mixture: JSON lines with instructions or with
    # messages, or questions with answers in any format of the field, recognised by their content
    train: tuple[tuple[Path, float], ...] = ()
    evaluation: Path | None = None  # held-out conversations or questions, in any of these formats
    # which gold answer of a question is trained: the first, or one sampled per epoch
    answers: Literal["first", "sampled"] = "first"
    # questions are asked with passages of this index, or closed book without index and passages
    index: Path | None = None
    passages: Path | None = None  # or of this corpus, searched by BM25
    passage_words: int = 100  # longer passages of the corpus are split into chunks of this many words


@dataclass(frozen=True)
class Generator(Validated):
    """The generator: a decoder-only checkpoint with a chat template."""

    # a folder or GGUF file, one of them as package:NAME/PATH, or a Hugging Face repository
    checkpoint: str
    adapter: str | None = None  # folder of a LoRA adapter in peft's layout, merged into the checkpoint
    max_length: int = 512  # most tokens of a conversation; a file with a longer one is refused
    # put before conversations and questions that have none; a text, or the name of one: guardrail, grounded, none
    system_prompt: str | None = None
    max_input: int = 300  # S, tokens of passage and question together; the passage is cut, never the question
    max_passage: int = 256  # tokens of a passage that the generator reads, unless data.index says; the rest is cut
    passages_per_prompt: int = 1  # passages that are read in one prompt, best first
    # the passage's part of a prompt, as "{title}\n{text}"; None: as the architecture usually reads it
    passage_template: str | None = None
    # the question's part, after the passage, as "\n\nQuestion: {question}", or the whole with the passage in it; None:
    # as the architecture usually reads it
    question_template: str | None = None
    # what is trained: regular expressions, each found anywhere in a parameter's name, as "norm" or "layers_5/"; None:
    # all of it, with lora only its adapters
    train: tuple[str, ...] | None = None
    lora: Lora = field(default_factory=Lora)  # adapters


@dataclass(frozen=True)
class Retriever(Validated):
    """The passages that questions are asked with (RA-DIT, Lin et al. 2023), retrieved before training begins."""

    tower: str | None = None  # checkpoint of the question tower that searches data.index; None: BM25
    passage_tower: str | None = None  # checkpoint of the passage tower of the index; None: the same as tower
    # K, the passages retrieved per question; an epoch asks it with one prompt of generator.passages-per-prompt of them
    num_docs: int = 3
    max_question: int = 128  # longest question, in tokens of either tokenizer
    irrelevant: float = 0.2  # share of the prompts whose passages are drawn at random instead
    # the response where no passage of the prompt holds an answer of the question; None: the answer all the same
    unanswerable: str | None = "The passages do not say."


@dataclass(frozen=True)
class InstructionConfig(Validated):
    """The config of an instruction tuning run."""

    data: Data  # files
    generator: Generator  # network and its input
    retriever: Retriever = field(default_factory=Retriever)  # passages of the questions
    optimizer: AdamW = field(default_factory=AdamW)  # optimizer and schedule
    mesh: Mesh = field(default_factory=Mesh)  # devices
    compute: Compute = field(default_factory=Compute)  # speed and memory
    watch: Watch = field(default_factory=Watch)  # further metric writers
    start_from: Path | None = None  # workdir of an instruction tuning run whose parameters this run starts from
    steps: int = 1_000  # optimizer steps
    batch_size: int = 32  # B, conversations per step
    # groups of similar length that a batch's conversations are read in: more of them, less padding, longer compilation
    length_groups: int = 4
    seed: int = 0  # of adapters, irrelevant passages and the order of the data
    log_every: int = 10  # steps between lines of metrics
    save_every: int = 500  # steps between checkpoints
    eval_every: int | None = None  # steps between evaluations; None: only at the end
    max_bad_steps: int = 10  # stop after this many steps in a row without a finite loss, gradient and update
