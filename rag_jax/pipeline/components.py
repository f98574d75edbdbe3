"""The components of a model: bi-encoder, generator, knowledge store, and the config that combines them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jax.sharding import Mesh
from tokenizers import Tokenizer

from rag_jax.config.config import Config, Retriever
from rag_jax.core import training
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.data.batches import ExampleTokenizer
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.data.tower_inputs import QuestionTokenizer, TowerInputFormat
from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import Side, TowerCheckpoint
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.parallel import devices
from rag_jax.pipeline import length_limits, recipes
from rag_jax.pipeline.host_retrieval import HostSearch, host_search
from rag_jax.types import Knowledge, Networks, Params, RagParams


@dataclass(frozen=True, eq=False)
class BiEncoder:
    """The question tower, and the passage tower where it is available."""

    config: TowerConfig
    params: Params = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    input_format: TowerInputFormat  # of the question tower
    source: str  # of the question tower, for error messages
    passage_encoder: TextEncoder | None
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # of the checkpoint, saved with it again
    side: Side | None = None  # of the question tower's checkpoint; None: it encodes passages too

    @property
    def question_tokenizer(self) -> QuestionTokenizer:
        """Converts questions to the question tower's input."""
        return QuestionTokenizer(self.tokenizer, self.input_format.question, self.input_format.max_length)

    def question_checkpoint(self, params: Params) -> TowerCheckpoint:
        """The question tower with some parameters, as a checkpoint."""
        settings, fed = self.tokenizer_settings, self.input_format
        return TowerCheckpoint(self.config, params, self.tokenizer, "question", settings, fed)

    def reading_as(self, retriever: Retriever) -> "BiEncoder":
        """The bi-encoder whose passage tower reads passages by a config's length and template."""
        if (encoder := self.passage_encoder) is None:
            return self
        length, template = retriever.max_passage, retriever.passage_template or encoder.template
        return replace(self, passage_encoder=replace(encoder, max_length=length, template=template))

    @property
    def required_passage_encoder(self) -> TextEncoder:
        """The passage tower. Raises `InputError` where the model came without it."""
        if self.passage_encoder is None:
            raise InputError(f"{self.source}: reads questions only; name the tower of the passages too, passage_tower")
        return self.passage_encoder


@dataclass(frozen=True, eq=False)
class GeneratorBundle:
    """The generator with its tokenizer."""

    config: GeneratorConfig
    params: Params = field(repr=False)
    tokenizer: GeneratorTokenizer = field(repr=False)
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Components:
    """All components of a model. Parameters are the initial ones of training."""

    config: Config
    bi_encoder: BiEncoder
    generator: GeneratorBundle
    store: Store
    step: int | None = None  # of the checkpoint that its trained passage tower is of; None: that is not trained
    search: HostSearch | None = None  # instead of the config's engine
    loaded: Knowledge | None = field(default=None, repr=False)  # instead of the store's, in runs that refresh it
    opened: HostSearch | None = field(default=None, repr=False)  # the config's engine, where it is open already

    def with_store(self, store: Store) -> "Components":
        """The same components over another store, with the engine that the config names."""
        return replace(self, store=store, search=None, loaded=None, opened=None)

    @property
    def knowledge_in_memory(self) -> Knowledge | None:
        """The index on the device, if it is there already."""
        return vars(self).get("knowledge", self.loaded)

    def over_same_index(self, **changes: Any) -> "Components":
        """Components that differ in what neither the vectors nor the passages' tokens depend on.

        An index that is on the device already, and an engine that is open, are shared.
        """
        engine = changes.get("config", self.config).retriever.engine
        is_same = self.search is None and engine == self.config.retriever.engine
        opened = vars(self).get("host_search", self.opened) if is_same else None
        return replace(self, **{"loaded": self.knowledge_in_memory, "opened": opened, **changes})

    def open_index(self) -> None:
        """Open the index as these components search it, for `over_same_index` to share."""
        if self.host_search is None:
            _ = self.knowledge

    @property
    def networks(self) -> Networks:
        """The networks as pure functions, for inference."""
        return recipes.inference_networks(self.config, self.bi_encoder.config, self.generator.config, self.mesh)

    @property
    def initial_params(self) -> RagParams:
        """The parameters that training starts from."""
        params = RagParams(self.bi_encoder.params, self.generator.params)
        if not self.config.retriever.train_passages:
            return params
        return params._replace(passage_tower=self.bi_encoder.required_passage_encoder.params)

    @property
    def trained_passage_tower(self) -> TowerConfig | None:
        """The sizes of the passage tower in a run that trains it, else None."""
        return self.bi_encoder.required_passage_encoder.config if self.config.retriever.train_passages else None

    @property
    def generator_tokenizer(self) -> GeneratorTokenizer:
        return self.generator.tokenizer

    @property
    def num_docs(self) -> int:
        """K; a closed-book model reads one empty passage."""
        return 1 if self.store.is_closed_book else self.config.retriever.num_docs

    @cached_property
    def mesh(self) -> Mesh | None:
        """The device mesh; None: one device."""
        return devices.mesh(self.config)

    @property
    def placement(self) -> Placement:
        """How the index is placed on the devices."""
        return Placement(self.mesh, self.config.retriever.precision, ("data", "fsdp"))

    @cached_property
    def knowledge(self) -> Knowledge:
        """The index on the device, or sharded over several."""
        return self.placement.knowledge(self.store) if self.loaded is None else self.loaded

    @cached_property
    def host_search(self) -> HostSearch | None:
        """The search engine on the host, opened once; None: search inside the compiled programs."""
        return self.search or self.opened or host_search(self.config.retriever.engine, self.store, self.placement)

    @property
    def passage_tokenizer(self) -> PassageTokenizer:
        """Converts passages to the generator's input."""
        return PassageTokenizer(self.generator_tokenizer, self.config.generator.max_passage)

    @property
    def truncated(self) -> list[str]:
        """Messages about passages that the tower or the generator truncates."""
        manifest = self.store.manifest
        if manifest is None:
            return []
        tower = "tower", manifest.truncated(), manifest.tower["max_length"]
        generator = "generator", manifest.truncated(self.passage_tokenizer.folder), self.passage_tokenizer.max_length
        return [f"the {who} reads {cut.summary(length)}" for who, cut, length in (tower, generator) if cut.passages]

    @property
    def decoder_start_token(self) -> str:
        """The token that decoding starts from."""
        return self.config.generator.start or self.generator_tokenizer.token(self.generator_tokenizer.decoder_start)

    @property
    def limits(self) -> GenerationLimits:
        """The start and end tokens of answers, and their maximum length."""
        start = token_id(self.generator_tokenizer, self.decoder_start_token, "generator.start")
        return GenerationLimits((start,), self.generator_tokenizer.eos, self.config.generator.max_target)

    @property
    def question_length(self) -> int:
        """The maximum tokens of a question, for both networks."""
        longest = self.example_tokenizer.longest_prompt
        return min(longest, self.bi_encoder.input_format.max_length or longest)

    @property
    def length_buckets(self) -> tuple[tuple[int, int], ...]:
        """The shapes that questions are padded to."""
        header = len(self.generator_tokenizer.header)
        return length_limits.length_buckets(self.config, self.bi_encoder.config.max_positions, header)

    @cached_property
    def example_tokenizer(self) -> ExampleTokenizer:
        """How questions and targets are tokenised."""
        c = self.config
        return ExampleTokenizer(
            self.bi_encoder.question_tokenizer,
            self.generator_tokenizer,
            max_question=c.retriever.max_question,
            max_target=c.generator.max_target,
            length_buckets=self.length_buckets,
            num_docs=self.num_docs,
            question_from_tower=c.generator.question_from_tower,
            truncate_questions=c.data.long_questions == "cut",
            max_prompt=c.generator.max_input - len(self.generator_tokenizer.header) - 1,
        )

    @property
    def recipe(self) -> training.Recipe:
        """The components of the training step. Raises `InputError` where the config denies the store's passages."""
        if self.config.data.is_closed_book and not self.store.is_closed_book:
            raise InputError(
                "data.index is None, but the model has passages, and a closed book reads none; name the index's folder"
            )
        networks = self.bi_encoder.config, self.generator.config
        how = self.num_docs, self.layout, self.placement, self.trained_passage_tower
        return recipes.recipe(self.config, *networks, *how)

    @property
    def layout(self) -> InputLayout:
        """How passages become the generator's inputs."""
        return recipes.layout(self.config, self.generator_tokenizer.header, self.generator_tokenizer.separator)


def token_id(tokenizer: GeneratorTokenizer, token: str, name: str) -> int:
    """The id of a token named by an option. Raises `InputError` for an unknown token."""
    id = tokenizer.tokenizer.token_to_id(token)
    if id is None:
        raise InputError(f"{name} is {token!r}, no token of the generator; give one of its vocabulary")
    return id
