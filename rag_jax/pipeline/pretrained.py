"""Between a RAG checkpoint of the Hugging Face ecosystem and the config and parts of a run."""

import dataclasses
from pathlib import Path

from rag_jax import hub
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.config.generation import GenerationConfig
from rag_jax.core.variants import Model
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer, read_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub import configs, loading, registry, tokenizers
from rag_jax.hub.config_json import ConfigJson
from rag_jax.index import manifest
from rag_jax.models import registry as families
from rag_jax.models.architecture import GeneratorConfig, SpecialTokens, TowerConfig
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.hf_generation import from_hf, to_hf
from rag_jax.types import RagParams


def describe(
    source: str,
    index: Path | None = None,
    *,
    passage_tower: str | None = None,
    model: Model | None = None,
) -> Config:
    """The config of a RAG checkpoint's parts, used together as it says; no weights are read.

    Raises `InputError` for a checkpoint that is none of RAG or that lacks what this needs.
    """
    folder = hub.resolve(source)
    stored = configs.read_config(folder)
    stored.expect("rag")
    tower = configs.tower(stored.nested("question_encoder"), folder)
    generator = configs.generator(stored.nested("generator"))
    words = read_words(folder)
    use = loading.describe(stored, model)
    told = from_hf(loading.generation(folder, stored), words, str(folder), use.model)
    towers = _towers(source, passage_tower, tower)
    return over(_united(towers, source, use, tower, generator, told), index)


def unite(
    question_tower: str,
    generator: str,
    index: Path | None = None,
    *,
    passage_tower: str | None = None,
    model: Model = "token",
    num_docs: int = 5,
) -> Config:
    """The config of towers and a generator that have not met yet, as the paper starts; no weights are read.

    Answers are decoded as the generator's checkpoint says. Raises `InputError` for what is no such checkpoint.
    """
    tower_folder, folder = hub.resolve(question_tower), hub.resolve(generator)
    stored = configs.read_config(folder)
    tower, sizes = configs.tower(configs.read_config(tower_folder), tower_folder), configs.generator(stored)
    told = from_hf(loading.generation(folder, stored), read_words(folder), str(folder), model)
    worded = Generator.passage_template, Generator.question_template
    use = hub.Reading(model, num_docs, Generator.max_input, *worded, question_from_tower=False)
    towers = _towers(question_tower, passage_tower, tower)
    return over(_united(towers, generator, use, tower, sizes, told), index)


def over(config: Config, index: Path | None) -> Config:
    """The config over an index; of one of this library, passages are as long as they are there."""
    if index is None:
        return config
    retriever, generator = config.retriever, config.generator
    tower, lengths = {}, set()
    if (index / manifest.FILE).exists():
        held = manifest.read(index)
        tower, lengths = held.tower, {facts["max_length"] for facts in held.generators.values()}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, index=index),
        retriever=dataclasses.replace(
            retriever,
            max_passage=tower.get("max_length", retriever.max_passage),
            passage_template=tower.get("template", retriever.passage_template),
        ),
        generator=dataclasses.replace(generator, max_passage=lengths.pop()) if len(lengths) == 1 else generator,
    )


def _towers(source: str, passage_tower: str | None, tower: TowerConfig) -> Retriever:
    """The retriever, before what `_united` knows of questions."""
    return Retriever(
        tower=source,
        passage_tower=passage_tower,
        vector_norm=tower.vector_norm,
        max_passage=min(Retriever.max_passage, tower.max_positions),
    )


def _united(
    retriever: Retriever,
    source: str,
    use: hub.Reading,
    tower: TowerConfig,
    generator: GeneratorConfig,
    told: tuple[str, GenerationConfig],
) -> Config:
    start, decoding = told
    longest = generator.max_positions or max(use.max_input, decoding.max_length or 0)
    inputs = min(use.max_input, longest)
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
    """A model as transformers' RAG is to hold it."""
    c, words, towers, reader = (
        components.config,
        components.generator_tokenizer,
        components.bi_encoder,
        components.generator,
    )
    generation = to_hf(components.decoder_start_token, c.decoding, words, c.generator.max_target)
    return hub.RagCheckpoint(
        tower=hub.TowerCheckpoint(
            towers.config,
            params.question_tower,
            towers.tokenizer,
            "question",
            towers.tokenizer_settings,
            towers.input_format,
        ),
        generator=hub.GeneratorCheckpoint(
            reader.config, params.generator, words.tokenizer, generation, reader.tokenizer_settings
        ),
        reading=hub.Reading(
            c.model,
            c.retriever.num_docs,
            c.generator.max_input,
            c.generator.passage_template,
            c.generator.question_template,
            c.generator.question_from_tower,
        ),
    )


def read_words(source: Path, special: SpecialTokens | None = None) -> GeneratorTokenizer:
    """The vocabulary of a generator: a checkpoint's or a workdir's folder, or a tokenizer.json with what is beside it.

    Its special tokens are those of the family that a config.json there names, unless they are given. Raises
    `InputError` where there is no tokenizer.
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
        is_known = "model_type" in model
        special = registry.generator(model).architecture.special_tokens if is_known else SpecialTokens()
    return generator_tokenizer(stored.tokenizer, str(folder), special)


def _buckets(question: int, inputs: int) -> tuple[tuple[int, int], ...]:
    """The usual shapes of questions, as far as they fit the networks, and one for the longest question."""
    usual = ((q, prompt) for q, prompt in Config.buckets if q < question and prompt < inputs)
    return (*usual, (question, question))
