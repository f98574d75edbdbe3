"""Configs of pretrained checkpoints, and a model as a Hugging Face RAG checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_jax import hub
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.config.generation import GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer, read_generator_tokenizer
from rag_jax.errors import InputError, warn
from rag_jax.hub import configs, loading, registry, tokenizers
from rag_jax.hub.config_json import ConfigJson
from rag_jax.index import manifest
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.models import registry as families
from rag_jax.models.architecture import GeneratorConfig, SpecialTokens, TowerConfig
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.hf_generation import continued, from_hf, to_hf
from rag_jax.types import RagParams

ANSWER_LENGTH = 64  # tokens of a decoder-only generator's answer, whose checkpoint does not say
UNLIMITED = 1024  # tokens of input and answer at most, of a network with relative positions


def describe(
    source: str,
    *,
    passage_tower: str | None = None,
    model: Model | None = None,
) -> Config:
    """The config of a RAG checkpoint. Reads no weights.

    Raises `InputError` for a checkpoint of another kind, and for one without the required files or settings.
    """
    folder = hub.resolve(source)
    stored = configs.read_config(folder)
    stored.expect("rag")
    tower = configs.tower(stored.nested("question_encoder"), folder)
    generator = configs.generator(stored.nested("generator"))
    tokenizer = load_generator_tokenizer(folder)
    use = loading.describe(stored, model)
    generation = from_hf(loading.generation(folder, stored), tokenizer, str(folder), use.model)
    retriever = _retriever(source, passage_tower, tower)
    return _combined(retriever, source, use, tower, generator, generation)


def combine(
    question_tower: str,
    generator: str,
    index: Path | None = None,
    *,
    passage_tower: str | None = None,
    model: Model = "token",
    num_docs: int = 5,
) -> Config:
    """The config of separately pretrained encoders and a generator. Reads no weights.

    The generation config is that of the generator's checkpoint; a decoder-only one answers greedily. Norm and width of
    vectors are those of the index. Raises `InputError` for unsuitable checkpoints.
    """
    tower, stored = loading.describe_tower(question_tower), loading.describe_generator(generator)
    sizes, tokenizer = configs.generator(stored.config), described_tokenizer(stored, generator)
    architecture = families.generator_of(sizes)
    if architecture.is_decoder_only:  # the settings of a chat, which samples, are not those of short answers
        _warn_of_other_ends(stored.generation, tokenizer, generator)
        start, decoding = "", GenerationConfig(max_length=ANSWER_LENGTH)
    else:
        start, decoding = from_hf(stored.generation, tokenizer, generator, model)
    use = hub.Reading(model, num_docs, Generator.max_input, *architecture.prompt[:2], question_from_tower=False)
    retriever = _retriever(question_tower, passage_tower, tower)
    config = _combined(retriever, generator, use, tower, sizes, (start, decoding))
    if architecture.is_decoder_only:
        config = _continued(config, has_chat="chat_template" in stored.settings)
    passages = tower if passage_tower is None else loading.describe_tower(passage_tower)
    return with_index(_with_vectors_of(index, config, passages), index)


def described_tokenizer(stored: loading.GeneratorDescription, source: str) -> GeneratorTokenizer:
    """The tokenizer of a generator's checkpoint. Raises `InputError` where it has none, or one that does not fit."""
    if stored.tokenizer is None:
        raise InputError(f"{source}: holds no tokenizer; save the checkpoint with its own (tokenizer.json)")
    sizes = configs.generator(stored.config)
    special = tokenizers.special_tokens(families.generator_of(sizes), stored.settings, source)
    fitted = tokenizers.fit_to_vocabulary(stored.tokenizer.tokenizer, sizes.vocab_size, source)
    return generator_tokenizer(fitted, source, special)


def _warn_of_other_ends(generation: Mapping[str, Any], tokenizer: GeneratorTokenizer, source: str) -> None:
    """Warn where transformers would also end an answer at other tokens than the tokenizer's end token."""
    ends = generation.get("eos_token_id")
    ids = [each for each in (ends if isinstance(ends, list) else [ends]) if type(each) is int and 0 <= each < 2**32]
    names = [tokenizer.tokenizer.id_to_token(each) for each in ids if each != tokenizer.eos]
    others = ", ".join(name for name in names if name is not None)
    if others:
        end = tokenizer.token(tokenizer.eos)
        warn(f"{source}: its generation config ends answers at {others} too, which here end at {end} alone")


def _continued(config: Config, has_chat: bool) -> Config:
    """The config of a decoder-only generator, whose answers continue its input; a chat model is asked in its chat."""
    prompt = {"start": None, "passage_template": None, "question_template": None, "chat": has_chat}
    positions, inputs = config.generator.max_target, config.generator.max_input  # shared by input and answer
    longest = max(positions - inputs, 1)
    length = min(config.decoding.max_length or ANSWER_LENGTH, longest)
    return dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, **prompt, max_target=longest),
        decoding=dataclasses.replace(config.decoding, max_length=length),
    )


def _with_vectors_of(index: Path | None, config: Config, passages: TowerConfig) -> Config:
    """The config with the norm and the width of an index's vectors, where the tower of the passages has others."""
    found, retriever = _tower_of(index), config.retriever
    norm, width = found.get("norm", passages.vector_norm), found.get("cut_to")
    norm = retriever.vector_norm if norm == passages.vector_norm else norm
    return dataclasses.replace(config, retriever=dataclasses.replace(retriever, vector_norm=norm, vector_width=width))


def _tower_of(index: Path | None) -> Mapping[str, Any]:
    """What an index says of its tower; nothing where it is of another library."""
    return manifest.read(index).tower if index is not None and (index / manifest.FILE).exists() else {}


def with_index(config: Config, index: Path | None) -> Config:
    """The config with an index. The passages' length and template for its tower replace those of the config."""
    if index is None:
        return config
    tower, retriever = _tower_of(index), config.retriever
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, index=index),
        retriever=dataclasses.replace(
            retriever,
            max_passage=tower.get("max_length", retriever.max_passage),
            passage_template=tower.get("template", retriever.passage_template),
        ),
    )


def with_length_of_index(config: Config, tokenizer: GeneratorTokenizer) -> Config:
    """The config with the passage length that its index has this generator's tokens of, if it is one length.

    Tokens of another vocabulary or template say nothing about it.
    """
    index, generator = config.data.index, config.generator
    if index is None or not (index / manifest.FILE).exists():
        return config
    own = PassageTokenizer(tokenizer, generator.max_passage).spec
    stored = manifest.read(index).generators.values()
    lengths = {facts["max_length"] for facts in stored if facts | {"max_length": own["max_length"]} == own}
    if len(lengths) != 1:
        return config
    return dataclasses.replace(config, generator=dataclasses.replace(generator, max_passage=lengths.pop()))


def with_adapter(config: Config, adapter: str | None) -> Config:
    """The config with a LoRA adapter of the generator."""
    return dataclasses.replace(config, generator=dataclasses.replace(config.generator, adapter=adapter))


def _retriever(source: str, passage_tower: str | None, tower: TowerConfig) -> Retriever:
    """The retriever, without the fields that `_combined` sets."""
    return Retriever(
        tower=source,
        passage_tower=passage_tower,
        vector_norm=tower.vector_norm,
        max_passage=min(Retriever.max_passage, tower.max_positions),
    )


def _combined(
    retriever: Retriever,
    source: str,
    use: hub.Reading,
    tower: TowerConfig,
    generator: GeneratorConfig,
    generation: tuple[str, GenerationConfig],
) -> Config:
    start, decoding = generation
    longest = generator.max_positions or max(UNLIMITED, use.max_input, decoding.max_length or 0)
    answer = ANSWER_LENGTH if families.generator_of(generator).is_decoder_only else 0  # it shares the positions
    inputs = min(use.max_input, max(longest - answer, 2))
    question = min(Retriever.max_question, tower.max_positions, inputs - 1)
    length = min(decoding.max_length or longest, longest)
    return Config(
        data=Data(),
        retriever=dataclasses.replace(retriever, num_docs=use.num_docs, max_question=question),
        generator=Generator(
            checkpoint=source,
            architecture=families.generator_of(generator).name,
            max_passage=inputs,
            max_input=inputs,
            max_target=longest,
            passage_template=use.passage_template,
            question_template=use.question_template,
            question_from_tower=use.question_from_tower,
            start=start,
        ),
        decoding=dataclasses.replace(decoding, max_length=length),
        model=use.model,
        buckets=_buckets(question, inputs),
    )


def checkpoint(components: Components, params: RagParams) -> hub.RagCheckpoint:
    """A model as a RAG checkpoint that transformers loads. Raises `InputError` for what it cannot express."""
    config, generator = components.config, components.generator
    together = config.generator.passages_per_prompt
    if together > 1 and not hub.is_in_parts(generator.config):
        asked = f"generator.passages_per_prompt is {together}"
        remedy = "nothing is written; keep the workdir, or save its generator alone (rag_jax.hub.save)"
        raise InputError(f"{asked}: transformers reads passages one by one; {remedy}")
    tokenizer = components.generator_tokenizer
    generation = to_hf(components.decoder_start_token, config.decoding, tokenizer, config.generator.max_target)
    if hub.is_in_parts(generator.config):
        generation = continued(generation)
    return hub.RagCheckpoint(
        tower=components.bi_encoder.question_checkpoint(params.question_tower),
        generator=hub.GeneratorCheckpoint(
            generator.config, params.generator, tokenizer.tokenizer, generation, generator.tokenizer_settings
        ),
        reading=hub.Reading(
            config.model,
            config.retriever.num_docs,
            config.generator.max_input,
            tokenizer.passage_template,
            tokenizer.question_template,
            config.generator.question_from_tower,
        ),
    )


def load_generator_tokenizer(source: Path, special: SpecialTokens | None = None) -> GeneratorTokenizer:
    """The tokenizer of a generator.

    Args:
        source: the folder of a checkpoint or a workdir, or a tokenizer.json; a config.json beside it is read.
        special: None: the special tokens of the architecture that config.json names.

    Raises `InputError` where there is no tokenizer.
    """
    if source.suffix == ".json" and (source.name != "tokenizer.json" or not source.exists()):
        return read_generator_tokenizer(source, special or SpecialTokens())
    folder = source.parent if source.suffix == ".json" else source
    path = folder / "config.json"
    model = configs.read_config(folder) if path.exists() else ConfigJson(str(path), {})
    if model.get("model_type") == "rag":
        folder, model = folder / "generator_tokenizer", model.nested("generator")
    stored = tokenizers.read(folder, model)
    if stored is None:
        raise InputError(f"{folder}: holds no tokenizer; save the checkpoint with its own (tokenizer.json)")
    if special is None:
        special = SpecialTokens()
        if "model_type" in model:
            special = tokenizers.special_tokens(registry.generator(model).architecture, stored.settings, folder)
    return generator_tokenizer(stored.tokenizer, str(folder), special)


def _buckets(question: int, inputs: int) -> tuple[tuple[int, int], ...]:
    """The default shapes that fit the networks, and one for the longest question."""
    defaults = ((q, prompt) for q, prompt in Config.buckets if q < question and prompt < inputs)
    return (*defaults, (question, question))
