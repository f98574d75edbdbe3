"""The config of a training run, as frozen dataclasses.

A config file is Python and ends with `config = Config(...)`. Every field has a dotted name, by which the command line
overrides it: `--optimizer.learning-rate 1e-4`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rag_jax.config.generation import GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.index.engines import registry
from rag_jax.models.registry import DEFAULT_GENERATOR


@dataclass(frozen=True)
class Data:
    """The files of a run. See `rag_jax.corpus` and `rag_jax.data.questions` for the formats."""

    passages: Path | None = None  # None, and no index: closed book, the generator reads the question alone
    train: Path | None = None
    evaluation: Path | None = None  # questions of the final evaluation
    # of several gold answers: the first; all, a pair for each, as the paper trains NQ and WebQuestions; or one of them,
    # drawn anew in each epoch
    answers: Literal["first", "all", "sampled"] = "first"
    # questions of more than retriever.max_question tokens, wherever they are asked: refused, or cut at their end and
    # counted
    long_questions: Literal["refuse", "cut"] = "refuse"
    passage_words: int = 100  # longer passages are cut into pieces of this many words
    index: Path | None = None  # where the knowledge store is, or is to be built; None: in the workdir

    @property
    def is_closed_book(self) -> bool:
        """Whether there is nothing to retrieve from."""
        return self.passages is None and self.index is None


@dataclass(frozen=True)
class Retriever:
    """The bi-encoder. Both towers start from `tower`, unless the passages have one of their own."""

    tower: str  # a checkpoint: a folder, "package:NAME/FOLDER", or a repository of the hub
    passage_tower: str | None = None  # of the passages, where it is another, as DPR's are; it stays as it is
    # trained: end to end; frozen: the paper's ablation; gold: none, the generator reads the gold passages
    mode: Literal["trained", "frozen", "gold"] = "trained"
    num_docs: int = 5  # K
    vector_norm: float | None = None  # for towers that normalise: scores are its square times the cosine
    max_question: int = 128  # tokens, in either vocabulary
    max_passage: int = 256  # tokens of a passage that the tower reads
    # what they read, where that is not as their checkpoints say: "{title}. {text}" or the like, or pair, which is DPR's
    # [CLS] title [SEP] text [SEP]; and "query: {question}" or the like
    passage_template: str | None = None
    question_template: str | None = None
    # device: exact, inside the program; on the host: faiss (as the index was built with), bm25, hybrid (dense and
    # bm25); fixed: training reads the passages that the question file names, all else searches as device does
    engine: registry.TrainingEngineName = "device"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"  # of the vectors on the device
    staleness: int = 0  # steps of training by which a search on the host may lag behind the question tower; 0: exact


@dataclass(frozen=True)
class Generator:
    """From a checkpoint, or from scratch in the sizes given here, with a vocabulary of its own."""

    checkpoint: str | None = None  # a folder, "package:NAME/FOLDER", or a repository of the hub
    architecture: str = DEFAULT_GENERATOR  # of a network from scratch; a checkpoint's is in its config.json
    tokenizer: Path | None = None  # its tokenizer.json; None: learnt from the texts of the run, kept in the workdir
    vocabulary: int = 2_000  # the size of a learnt one
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    ffn_width: int = 512
    dropout: float = 0.1
    init_std: float = 0.02
    max_passage: int = 256  # tokens of a passage that the generator reads
    max_input: int = 300  # S: passage and question together; the passage is cut, never the question
    lengths: tuple[int, ...] = ()  # tokens an input on average, ascending: what training may pack a batch's inputs to
    max_target: int = 32  # T, the end token included
    passage_template: str = "{title} / {text}"  # what it reads of a passage
    question_template: str = " // {question}"  # and of the question, behind it
    # transformers' RAG has the question decoded from the tower's tokens: in lower case, where its vocabulary is
    question_from_tower: bool = False
    start: str | None = None  # the token that decoding starts from; None: the one that training starts from


@dataclass(frozen=True)
class Optimizer:
    """AdamW for the question tower; AdamW or Muon for the generator. One schedule: linear warm-up, linear decay."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-5
    tower_learning_rate: float = 3e-5
    adam_learning_rate: float = 3e-3  # with Muon: for embeddings, biases and LayerNorms
    warmup: int = 500
    weight_decay: float = 1e-3
    clip: float = 0.1
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Mesh:
    """How devices share the work; the product is their number. The index is spread over all of them."""

    data: int = 1  # copies of the parameters, each reading its share of the batch
    fsdp: int = 1  # devices that share parameters and moments, and the batch as well
    tensor: int = 1  # devices that share each matrix product

    @property
    def size(self) -> int:
        """The devices of the mesh."""
        return self.data * self.fsdp * self.tensor


@dataclass(frozen=True)
class Compute:
    """What a step costs in memory and time; the results are the same but for rounding."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of the networks; parameters, moments, likelihood: float32
    # what is computed again in the backward pass: nothing; all but the matrix products; each layer
    remat: Literal["none", "dots", "full"] = "none"
    scan: bool = False  # layers as one loop: compiles in a fraction of the time
    attention: Literal["plain", "fused"] = "plain"
    accumulate: int = 1  # parts that a batch is computed in, one after the other
    cache: Path | None = None  # a folder where compiled programs are kept for the next run


@dataclass(frozen=True)
class Watch:
    """Where a run is watched, besides the terminal and its files."""

    tensorboard: bool = False  # event files in the workdir
    wandb: str | None = None  # a project of Weights & Biases; needs its package


@dataclass(frozen=True)
class Config:
    """One training run."""

    data: Data
    retriever: Retriever
    generator: Generator = field(default_factory=Generator)
    optimizer: Optimizer = field(default_factory=Optimizer)
    decoding: GenerationConfig = field(
        default_factory=GenerationConfig
    )  # how answers are found, unless asked for otherwise
    mesh: Mesh = field(default_factory=Mesh)
    compute: Compute = field(default_factory=Compute)
    watch: Watch = field(default_factory=Watch)
    model: Model = "token"
    start_from: Path | None = None  # a workdir whose parameters this run starts from
    closed_book: Path | None = None  # the workdir of a closed-book run, reported beside this one's scores
    steps: int = 1_000
    batch_size: int = 32
    # (Q, L) that questions are padded to in the two vocabularies; each pair is one compilation
    buckets: tuple[tuple[int, int], ...] = ((16, 20), (32, 36), (64, 68), (128, 132))
    seed: int = 0
    log_every: int = 10  # steps
    save_every: int = 500  # steps
    eval_every: int | None = None  # steps; None: at the end only
    max_bad_steps: int = 10  # steps in a row without a finite loss, gradient and update, after which training stops
    eval_batch: int = 64
