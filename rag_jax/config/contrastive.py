"""The config of contrastive training of a bi-encoder, as frozen dataclasses.

A config file ends with `config = ContrastiveConfig(...)`; `rag-jax train` runs it like any other config.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rag_jax.config.config import AdamW, Compute, Mesh, Watch
from rag_jax.data.validation import Validated


@dataclass(frozen=True)
class Data(Validated):
    """The files of a run."""

    # the corpus: JSON lines, DPR's tsv, KILT, a folder of text or Markdown
    passages: Path | None = None
    # training questions with their gold passages (positive_ids), in any format of the field, recognised by its content
    train: Path | None = None
    # hard negatives: JSON lines with id and negative_ids, as rag-jax mine writes them; None: those of the question file
    negatives: Path | None = None
    evaluation: Path | None = None  # evaluation questions, in any of these formats
    passage_words: int = 100  # longer passages are split into chunks of this many words
    # an index of the corpus by the towers that training starts from: their recall is reported beside the trained ones'
    index: Path | None = None


@dataclass(frozen=True)
class BiEncoder(Validated):
    """The towers, and what is trained of them."""

    # checkpoint of the question tower: a folder, package:NAME/FOLDER, or a Hugging Face repository
    tower: str
    passage_tower: str | None = None  # checkpoint of the passage tower; None: the same as tower
    # shared: one tower encodes questions and passages; both: two towers, each with its own parameters; question: the
    # passage tower stays as it is
    trained: Literal["shared", "both", "question"] = "both"
    # scale all vectors to this length, so that scores are its square times the cosine; None: as the tower returns them
    vector_norm: float | None = None
    dropout: float | None = None  # rate during training; None: as the checkpoint says
    max_question: int = 128  # tokens of a question that the tower reads; the rest is cut
    max_passage: int = 256  # tokens of a passage that the tower reads; the rest is cut
    # input of the passage tower: a template such as "{title}. {text}", or pair: [CLS] title [SEP] text [SEP] as in DPR;
    # None: as the checkpoint says
    passage_template: str | None = None
    # input of the question tower: a template such as "query: {question}"; None: as the checkpoint says
    question_template: str | None = None
    adapter: str | None = None  # folder of a LoRA adapter in peft's layout, merged into the question tower's checkpoint
    # share of the trained parameters in those that are saved and scored, start + share * (trained - start), where the
    # rest is the checkpoints' (WiSE-FT, Wortsman et al. 2022); 1: the trained ones
    interpolation: float = 1.0


@dataclass(frozen=True)
class Contrast(Validated):
    """The loss: each question's gold passage against the other passages of the batch."""

    hard_negatives: int = 1  # per question, sampled from its list in every epoch
    temperature: float = 1.0  # that scores are divided by
    symmetric: bool = False  # the mean with the loss of each gold passage against the questions of the batch
    # passages of the batch that are right for a question too, and no negatives of it: the other gold passages; or also
    # those that hold one of its answers
    false_negatives: Literal["gold", "answer"] = "gold"
    log_q: bool = False  # correct for how often each passage is drawn (Yi et al. 2019)
    widths: tuple[int, ...] = ()  # Matryoshka: the loss is the mean over vectors cut to each of these widths
    # share of Margin-MSE in the loss, from 0 to 1: the differences between the scores of a question's own passages are
    # fitted to a teacher's, which data.negatives holds
    margin_mse: float = 0.0
    # GradCache: questions or passages encoded at once, in two passes, so that a batch needs the memory of a chunk;
    # None: the whole batch in one pass
    chunk: int | None = None
    # groups of similar length that a batch's passages are encoded in: more of them, less padding, longer compilation
    length_groups: int = 4


@dataclass(frozen=True)
class ContrastiveConfig(Validated):
    """The config of a contrastive training run."""

    data: Data  # files
    retriever: BiEncoder  # towers
    contrastive: Contrast = field(default_factory=Contrast)  # loss
    optimizer: AdamW = field(default_factory=AdamW)  # optimizer and schedule
    mesh: Mesh = field(default_factory=Mesh)  # devices
    compute: Compute = field(default_factory=Compute)  # speed and memory
    watch: Watch = field(default_factory=Watch)  # further metric writers
    start_from: Path | None = None  # workdir of a contrastive run whose trained parameters this run starts from
    steps: int = 1_000  # optimizer steps; one epoch is the number of questions / batch-size
    batch_size: int = 128  # B, questions per step
    seed: int = 0  # of the order of the data and dropout
    log_every: int = 10  # steps between lines of metrics
    save_every: int = 500  # steps between checkpoints
    eval_every: int | None = None  # steps between evaluations, each of which encodes the corpus; None: only at the end
    max_bad_steps: int = 10  # stop after this many steps in a row without a finite loss, gradient and update
