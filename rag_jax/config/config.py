"""The config of a training run, as frozen dataclasses.

A config file is Python and ends with `config = Config(...)`. Every field has a dotted name, by which the command line
overrides it: `--optimizer.learning-rate 1e-4`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rag_jax.config.generation import GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.data.validation import Validated
from rag_jax.index.engines import registry
from rag_jax.models.registry import DEFAULT_GENERATOR


@dataclass(frozen=True)
class Data(Validated):
    """The files of a run."""

    # the corpus: JSON lines, DPR's tsv, KILT, a folder of text or Markdown; None, and no index: closed book
    passages: Path | None = None
    # training questions with their answers: JSON lines, or another format of the field, recognised by its content
    train: Path | None = None
    evaluation: Path | None = None  # evaluation questions, in any of these formats
    # which gold answers are trained: the first; all, one pair per answer, as the paper does for NQ and WebQuestions; or
    # one sampled per epoch
    answers: Literal["first", "all", "sampled"] = "first"
    # questions longer than retriever.max-question: refuse (an error), or cut (truncate and count)
    long_questions: Literal["refuse", "cut"] = "refuse"
    passage_words: int = 100  # longer passages are split into chunks of this many words
    index: Path | None = None  # folder of the index, built there if missing; None: WORKDIR/index

    @property
    def is_closed_book(self) -> bool:
        """Whether there is nothing to retrieve from."""
        return self.passages is None and self.index is None


@dataclass(frozen=True)
class Lora(Validated):
    """LoRA (Hu et al. 2021): kernel + alpha / rank * A B, of which only A and B are trained."""

    rank: int | None = None  # r, of A and B; None: no adapters
    alpha: float = 16.0  # scale of the adapters, divided by the rank
    # kernels with adapters: regular expressions, each found anywhere in a kernel's name, as "ffn/up" or
    # "decoder_layers_[0-3]/.*/kernel$"
    targets: tuple[str, ...] = ("query/kernel$", "value/kernel$")


@dataclass(frozen=True)
class Distillation(Validated):
    """Distillation from the reader: the question tower learns from its judgement of each passage."""

    # none: the question tower learns from the model's likelihood; emdr2: from RAG-Sequence's, whatever the model;
    # pdist: from the answer's perplexity under each passage; loop: from that without each; lsr: as REPLUG; adist: from
    # the attention on each, with model fid
    objective: Literal["none", "emdr2", "pdist", "loop", "adist", "lsr"] = "none"
    # tau, of the retriever: softmax(scores / tau) learns; reading and answering keep softmax(scores)
    temperature: float = 1.0
    teacher_temperature: float = 1.0  # T, of the reader's judgement; small: only the best passage counts. Not of emdr2
    weight: float = 1.0  # factor of the distillation's loss; the reader's own has 1


@dataclass(frozen=True)
class Retriever(Validated):
    """The bi-encoder: a question tower and a passage tower."""

    # checkpoint of the question tower: a folder, package:NAME/FOLDER, or a Hugging Face repository
    tower: str
    passage_tower: str | None = None  # checkpoint of the passage tower; None: the same as tower
    # trained: end to end; frozen: the question tower stays as it is; gold: no retrieval, read the gold passages
    mode: Literal["trained", "frozen", "gold"] = "trained"
    num_docs: int = 5  # K, the passages retrieved per question
    # N, the passages that the prior is over in training, of which the num-docs best are read; None: num-docs
    prior_docs: int | None = None
    # scale all vectors to this length, so that scores are its square times the cosine; None: as the tower returns them
    vector_norm: float | None = None
    vector_width: int | None = None  # keep the first so many components of vectors; None: as the tower returns them
    max_question: int = 128  # longest question, in tokens of either tokenizer
    max_passage: int = 256  # tokens of a passage that the passage tower reads; the rest is cut
    # input of the passage tower: a template such as "{title}. {text}", or pair: [CLS] title [SEP] text [SEP] as in DPR;
    # None: as the checkpoint says
    passage_template: str | None = None
    # input of the question tower: a template such as "query: {question}"; None: as the checkpoint says
    question_template: str | None = None
    # device: exact search inside the compiled step; faiss, bm25, hybrid (dense and bm25): search on the host; fixed:
    # training reads the passage_ids of the question file
    engine: registry.TrainingEngineName = "device"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"  # of the passage vectors on the device
    staleness: int = 0  # steps by which a search on the host may lag behind the question tower; 0: exact
    # what is trained of the question tower: regular expressions, each found anywhere in a parameter's name, as "norm"
    # or "layer_11/"; None: all of it, with lora only its adapters
    train: tuple[str, ...] | None = None
    lora: Lora = field(default_factory=Lora)  # adapters of the question tower
    adapter: str | None = None  # folder of a LoRA adapter in peft's layout, merged into the question tower's checkpoint
    distillation: Distillation = field(default_factory=Distillation)  # of the reader into the question tower
    # train the passage tower too, which RAG leaves as it is; the index is then encoded again on the device, and the
    # trained tower's written to WORKDIR/refreshed_index
    train_passages: bool = False
    # n: every passage is encoded again every n steps, a share of them in each step; None: never, which needs candidates
    refresh_every: int | None = None
    refresh_at_once: bool = False  # all of them in every n-th step
    # passages that a search with the stored vectors returns, of which the num-docs best by fresh ones are read; None:
    # num-docs
    candidates: int | None = None


@dataclass(frozen=True)
class Generator(Validated):
    """The generator: a checkpoint, or a network from scratch in the sizes given here."""

    # a folder or GGUF file, one of them as package:NAME/PATH, or a Hugging Face repository; None: from scratch
    checkpoint: str | None = None
    architecture: str = DEFAULT_GENERATOR  # of a network from scratch; a checkpoint states its own
    # tokenizer.json of a network from scratch; None: learnt from the run's texts, saved in the workdir
    tokenizer: Path | None = None
    vocabulary: int = 2_000  # size of a learnt vocabulary
    width: int = 128  # of the hidden states, from scratch
    encoder_layers: int = 2  # from scratch
    decoder_layers: int = 2  # from scratch
    heads: int = 4  # attention heads, from scratch
    ffn_width: int = 512  # of the feed-forward layers, from scratch
    # rate during training; None: as the checkpoint says, 0.1 from scratch; only 0 for networks without dropout
    dropout: float | None = None
    init_std: float = 0.02  # standard deviation of random weights, from scratch
    max_passage: int = 256  # tokens of a passage that the generator reads; the rest is cut
    max_input: int = 300  # S, tokens of passage and question together; the passage is cut, never the question
    # mean input lengths that a batch may be packed to, ascending and below max-input; none: no packing
    lengths: tuple[int, ...] = ()
    max_target: int = 32  # T, tokens of an answer, the end token included
    # passages that are read in one input, best first; the inputs are marginalised over. num-docs: all in one
    # ("stuffing"), without marginalisation
    passages_per_prompt: int = 1
    # the passage's part of the input, as "{title} / {text}"; None: as the architecture usually reads it
    passage_template: str | None = None
    # the question's part, after the passage, as " // {question}", or the whole with the passage in it, as
    # "question: {question} {passage}"; None: as the architecture usually reads it
    question_template: str | None = None
    chat: bool = False  # decoder-only: passage and question are the user's message in the tokenizer's chat template
    # decoder-only: instructions before every passage; a text, or the name of one: guardrail, grounded, none
    system_prompt: str | None = None
    # decode the question from the tower's tokens, lower-cased if its vocabulary is, as transformers' RAG does
    question_from_tower: bool = False
    start: str | None = None  # token that decoding starts from; None: as in training
    # what is trained of the generator: regular expressions, each found anywhere in a parameter's name, as "norm" or
    # "decoder_layers_5/"; None: all of it, with lora only its adapters
    train: tuple[str, ...] | None = None
    lora: Lora = field(default_factory=Lora)  # adapters of the generator
    adapter: str | None = None  # folder of a LoRA adapter in peft's layout, merged into the checkpoint


@dataclass(frozen=True)
class Optimizer(Validated):
    """AdamW for the question tower, AdamW or Muon for the generator. Linear warm-up, then linear decay to 0."""

    kind: Literal["adamw", "muon"] = "adamw"  # of the generator
    learning_rate: float = 3e-5  # peak, of the generator
    tower_learning_rate: float = 3e-5  # peak, of the question tower, and of the passage tower if it is trained
    adam_learning_rate: float = 3e-3  # peak, with Muon: of embeddings, biases and LayerNorms
    warmup: int = 500  # steps
    weight_decay: float = 1e-3  # decoupled weight decay
    clip: float = 0.1  # maximum global norm of the gradient; inf: no clipping
    label_smoothing: float = 0.0  # probability mass spread over the vocabulary


@dataclass(frozen=True)
class AdamW(Validated):
    """AdamW, where one optimizer trains everything. Linear warm-up, then linear decay to 0."""

    learning_rate: float = 2e-5  # peak
    warmup: int = 100  # steps
    weight_decay: float = 0.0  # decoupled weight decay
    clip: float = 2.0  # maximum global norm of the gradient; inf: no clipping


@dataclass(frozen=True)
class Mesh(Validated):
    """How devices share the work. The index is sharded over all of them."""

    data: int = 1  # data parallelism: copies of the parameters
    fsdp: int = 1  # fully sharded data parallelism: devices that share parameters and optimizer state
    tensor: int = 1  # tensor parallelism: devices that share each matrix product

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.data * self.fsdp * self.tensor


@dataclass(frozen=True)
class Compute(Validated):
    """Speed and memory of a step. Results stay the same up to rounding and the masks of dropout."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters and likelihood stay float32
    matmul_precision: Literal["default", "bfloat16"] = "default"  # of the networks' products; bfloat16: factors rounded
    remat: Literal["none", "dots", "full"] = "none"  # recompute in the backward pass: all but matrix products; all
    scan: bool = False  # run the layers as one loop, which compiles much faster
    attention: Literal["plain", "fused"] = "plain"  # fused: jax.nn.dot_product_attention
    accumulate: int = 1  # microbatches per batch, computed one after the other
    prefill_chunk: int | None = None  # decoder-only, inference: prompt tokens read at once; None: all, or a window
    cache: Path | None = None  # folder of compiled programs, reused by later runs


@dataclass(frozen=True)
class Watch(Validated):
    """Where metrics go besides the terminal and metrics.jsonl."""

    tensorboard: bool = False  # write event files to WORKDIR/tensorboard
    wandb: str | None = None  # project of Weights & Biases; needs the package wandb


@dataclass(frozen=True)
class Config(Validated):
    """The config of a training run."""

    data: Data  # files
    retriever: Retriever  # bi-encoder and search
    generator: Generator = field(default_factory=Generator)  # network and its input
    optimizer: Optimizer = field(default_factory=Optimizer)  # optimizers and schedule
    decoding: GenerationConfig = field(default_factory=GenerationConfig)  # how evaluations find answers
    mesh: Mesh = field(default_factory=Mesh)  # devices
    compute: Compute = field(default_factory=Compute)  # speed and memory
    watch: Watch = field(default_factory=Watch)  # further metric writers
    # token: RAG-Token; sequence: RAG-Sequence; fid: Fusion-in-Decoder, which leaves the retriever as it is, unless it
    # learns by retriever.distillation
    model: Model = "token"
    start_from: Path | None = None  # workdir whose trained parameters this run starts from
    closed_book: Path | None = None  # workdir of a closed-book run, whose exact match is reported as a baseline
    steps: int = 1_000  # optimizer steps; an epoch is pairs / batch-size, as many pairs as data.answers makes
    batch_size: int = 32  # B, questions per step
    # (Q, L) question lengths in tokens of tower and generator that batches are padded to; one compilation each
    buckets: tuple[tuple[int, int], ...] = ((16, 20), (32, 36), (64, 68), (128, 132))
    seed: int = 0  # of parameters, order of the data and dropout
    log_every: int = 10  # steps between lines of metrics
    save_every: int = 500  # steps between checkpoints
    eval_every: int | None = None  # steps between evaluations; None: only at the end
    max_bad_steps: int = 10  # stop after this many steps in a row without a finite loss, gradient and update
    eval_batch: int = 64  # questions per batch of an evaluation

    @property
    def searches(self) -> bool:
        """Whether training reads what was retrieved; a closed book reads nothing, and the mode gold what is right."""
        return not self.data.is_closed_book and self.retriever.mode != "gold"
