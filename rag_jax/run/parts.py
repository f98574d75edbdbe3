"""What a run or an answer is composed of, and the training step that its config asks for."""

from dataclasses import dataclass
from functools import cached_property, partial

import optax
from tokenizers import Tokenizer

from rag_jax.core import losses, optimizers, training
from rag_jax.core.search import Limits
from rag_jax.data.tokenizers import Vocabulary
from rag_jax.errors import InputError
from rag_jax.knowledge.encoder import Encoder
from rag_jax.knowledge.loading import Placement
from rag_jax.knowledge.reads import Reads
from rag_jax.knowledge.store import Store
from rag_jax.models import bart, bert
from rag_jax.run.config import Config
from rag_jax.run.lookup import HostSearch, host_search
from rag_jax.types import Networks, Params, RagParams

OBJECTIVES = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}
TRAINING = {  # by the retriever's mode: what becomes of the question tower, and where the passages come from
    "trained": (lambda tower: tower, training.nearest),
    "frozen": (training.frozen, training.nearest),
    "gold": (training.absent, training.gold),
    "closed book": (training.absent, training.nearest),
}


@dataclass(frozen=True)
class Towers:
    """The bi-encoder: the question tower, and that of the passages where it is at hand."""

    config: bert.BertConfig
    params: Params
    tokenizer: Tokenizer
    source: str  # where it is from, for errors
    passages: Encoder | None

    @property
    def encoder(self) -> Encoder:
        """The frozen passage tower. Raises `InputError` where the model came without it."""
        if self.passages is None:
            raise InputError(f"{self.source}: reads questions only; name the tower of the passages too, passage_tower")
        return self.passages


@dataclass(frozen=True)
class Reader:
    """The generator with its vocabulary."""

    config: bart.BartConfig
    params: Params
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Parts:
    """What a run or an answer is composed of; `towers` and `reader` hold what training starts from."""

    config: Config
    towers: Towers
    reader: Reader
    store: Store

    @property
    def networks(self) -> Networks:
        """The networks as pure functions."""
        return Networks(bert.tower(self.towers.config), bart.generator(self.reader.config))

    @property
    def first(self) -> RagParams:
        """The parameters that training starts from."""
        return RagParams(self.towers.params, self.reader.params)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.reader.vocabulary

    @property
    def num_docs(self) -> int:
        """K; closed book there is one passage, an empty one."""
        return 1 if self.store.is_closed_book else self.config.retriever.num_docs

    @property
    def placement(self) -> Placement:
        """Where the index is kept, and how the programs reach it."""
        return Placement(self.config.retriever.shards, self.config.retriever.precision)

    @cached_property
    def host_search(self) -> HostSearch | None:
        """The search outside the programs that the config asks for; None: theirs. Opened once."""
        return host_search(self.config.retriever.engine, self.store, self.placement)

    @property
    def reads(self) -> Reads:
        """What the generator reads of a passage."""
        return Reads(self.vocabulary, self.config.generator.max_passage)

    @property
    def limits(self) -> Limits:
        """How answers begin and end."""
        start = token_id(self.vocabulary, self.config.generator.start, "generator.start")
        return Limits((start,), self.vocabulary.eos, self.config.generator.max_target)

    @property
    def recipe(self) -> training.Recipe:
        """The training step's parts."""
        c = self.config
        objective = partial(OBJECTIVES[c.model], label_smoothing=c.optimizer.label_smoothing)
        change, search = TRAINING[c.retriever.mode if not c.data.is_closed_book else "closed book"]
        networks = self.networks._replace(tower=change(self.networks.tower))
        lookup = self.placement.index
        return training.Recipe(networks, objective, _optimizer(c), self.num_docs, c.generator.max_input, search, lookup)


def token_id(words: Vocabulary, token: str, name: str) -> int:
    """The id of a special token that an option names."""
    found = words.tokenizer.token_to_id(token)
    if found is None:
        raise InputError(f"{name} is {token!r}, no token of the generator; give one of its vocabulary")
    return found


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
