"""Loading checkpoints from a folder, a GGUF file or a repository of the Hugging Face hub."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax

from rag_jax.core.variants import Model
from rag_jax.data.templates import plain_text
from rag_jax.data.validation import Count
from rag_jax.errors import InputError
from rag_jax.hub import configs, gguf, marker, registry, tensor_names, tokenizers
from rag_jax.hub.adapters import Modules
from rag_jax.hub.checkpoints import Checkpoint, GeneratorCheckpoint, RagCheckpoint, Reading, Side, TowerCheckpoint
from rag_jax.hub.config_json import REMEDY, ConfigJson, Positions, read_settings
from rag_jax.hub.configs import read_config
from rag_jax.hub.formats import Layout, TowerFormat
from rag_jax.hub.input_format import read_input_format, with_lowercasing
from rag_jax.hub.locate import is_gguf, resolve
from rag_jax.hub.tensors import Tensors, read_tensors
from rag_jax.models.architecture import Architecture, GeneratorConfig, SpecialTokens, TowerConfig
from rag_jax.types import Generator

RAG = "rag"  # the model_type of RAG checkpoints
WORDS = "word/embedding"  # our path of a tower's token table


def load(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Load a tower, a generator, RAG-Token or RAG-Sequence, of any family in the registry, as config.json says.

    `source` is a folder, a GGUF file, one of them in a package, or a repository of the hub (`rag_jax.hub.locate`).
    Tensors are read one by one, in any stored precision, and converted to float32. Raises `InputError` for a checkpoint
    that cannot be found, is damaged, or does not fit its config.
    """
    folder = resolve(source, revision)
    if is_gguf(folder):
        return _gguf_generator(folder)
    marker.verify(folder)
    config = read_config(folder)
    generators = registry.model_types(registry.GENERATORS.values())
    config.expect(*sorted((*registry.model_types(registry.TOWERS.values()), *generators)), RAG)
    if config["model_type"] == RAG:
        reading = describe(config)
        return RagCheckpoint(_rag_tower(folder, config), _rag_generator(folder, config), reading)
    is_generator = config["model_type"] in generators and not _holds_tower(folder, config)
    return (_generator if is_generator else _tower)(folder, config)


def _holds_tower(folder: Path, config: ConfigJson) -> bool:
    """Whether a network that could be either is stored as a tower: by sentence-transformers, or without a head."""
    could = config["model_type"] in registry.model_types(registry.TOWERS.values())
    return could and (config.architecture.endswith("Model") or (folder / "modules.json").exists())


def load_tower(source: str | Path, revision: str | None = None) -> TowerCheckpoint:
    """Load a tower, or only the question tower of a RAG checkpoint. Raises as `load`.

    A generator of a family that is also one of towers is loaded as a tower: its network without the head.
    """
    folder = resolve(source, revision)
    if is_gguf(folder):
        return _gguf_tower(folder)
    marker.verify(folder)
    config = read_config(folder)
    config.expect(*registry.model_types(registry.TOWERS.values()), RAG)
    return (_rag_tower if config["model_type"] == RAG else _tower)(folder, config)


def load_generator(source: str | Path, revision: str | None = None) -> GeneratorCheckpoint:
    """Load a generator, or only the generator of a RAG checkpoint. Raises as `load`."""
    folder = resolve(source, revision)
    if is_gguf(folder):
        return _gguf_generator(folder)
    marker.verify(folder)
    config = read_config(folder)
    config.expect(*registry.model_types(registry.GENERATORS.values()), RAG)
    return (_rag_generator if config["model_type"] == RAG else _generator)(folder, config)


def generator_family(source: str | Path) -> Architecture[Generator]:
    """The architecture of a checkpoint's generator, from its config alone. Raises as `load`."""
    return registry.generator(_generator_config(resolve(source))).architecture


def _generator_config(path: Path) -> ConfigJson:
    config = gguf.read(path).config if is_gguf(path) else read_config(path)
    return config.nested("generator") if config.get("model_type") == RAG else config


class GeneratorDescription(NamedTuple):
    """A generator's checkpoint without its weights."""

    config: ConfigJson
    tokenizer: tokenizers.Stored | None
    generation: Mapping[str, Any]  # the known settings of transformers' generation config

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of its tokenizer, if it has one."""
        return {} if self.tokenizer is None else self.tokenizer.settings


def describe_generator(source: str | Path) -> GeneratorDescription:
    """Describe a generator, or the generator of a RAG checkpoint. Raises as `load`."""
    path = resolve(source)
    if is_gguf(path):
        config, _, tokenizer, generation_config = gguf.read(path)
        return GeneratorDescription(config, tokenizer, generation_config)
    config = read_config(path)
    if config.get("model_type") != RAG:
        return GeneratorDescription(config, tokenizers.read(path, config), generation(path, config))
    nested = config.nested("generator")
    stored = tokenizers.read(path / "generator_tokenizer", nested)
    return GeneratorDescription(nested, stored, generation(path, config))


def describe_tower(source: str | Path) -> TowerConfig:
    """The sizes and pooling of a tower, or of a RAG checkpoint's question tower. Raises as `load_tower`."""
    path = resolve(source)
    if is_gguf(path):
        return configs.tower(gguf.read(path).config, path)
    config = read_config(path)
    if config["model_type"] == RAG:
        return configs.tower(config.nested("question_encoder"), path / "question_encoder_tokenizer")
    return configs.tower(config, path)


def special_tokens(source: str | Path) -> SpecialTokens:
    """The special tokens of a checkpoint's generator; of a decoder-only one, those of its tokenizer.

    Raises as `load`, and where a decoder-only generator's tokenizer has no end token.
    """
    architecture = generator_family(source)
    settings = describe_generator(source).settings if architecture.is_decoder_only else {}
    return tokenizers.special_tokens(architecture, settings, source)


def tower_modules(source: str | Path) -> Modules:
    """The names of torch's modules in a tower, as transformers' AutoModel loads it: without a head around it."""
    folder = resolve(source)
    if is_gguf(folder):
        found = gguf.read(folder)
        return _tower_modules(registry.tower(found.config), found.tensors, "")
    config, tensors, prefix = read_config(folder), tensor_names.normalize_names(read_tensors(folder)), ""
    if config["model_type"] == RAG:
        config, (tensors, prefix) = config.nested("question_encoder"), _rag_part(folder, "question_encoder.")
    return _tower_modules(registry.tower(config), tensors, prefix)


def _tower_modules(family: TowerFormat, tensors: Tensors, prefix: str) -> Modules:
    layout = _layout(family, tensors, prefix)
    heads = [each.prefix for each in family.layouts if each.side is None]
    if prefix or layout.prefix not in heads:
        return Modules(layout.names, prefix + layout.prefix)
    return Modules(layout.names, below_a_head="".join(heads))


def generator_modules(source: str | Path) -> Modules:
    """The names of torch's modules in a generator's checkpoint."""
    path = resolve(source)
    is_rag = not is_gguf(path) and read_config(path)["model_type"] == RAG
    prefix = _rag_part(path, "generator.")[1] if is_rag else ""
    return Modules(registry.generator(_generator_config(path)).names, prefix)


def describe(config: ConfigJson, model: Model | None = None) -> Reading:
    """Read the settings of a RAG checkpoint. Raises `InputError` if neither its config nor `model` names the model."""
    architecture = config.architecture or "none"
    if model is None and architecture not in configs.MODELS:
        what = f"architecture is {architecture}, neither of {' and '.join(configs.MODELS)}"
        raise InputError(f"{config.source}: {what}; say which model it is: token or sequence")
    prefix = config.nested("generator").read("prefix", str, "")  # transformers does not read the outer one
    title_sep, doc_sep = config.read("title_sep", str), config.read("doc_sep", str)
    for name, text in (("prefix", prefix), ("title_sep", title_sep), ("doc_sep", doc_sep)):
        plain_text(text, f"{config.source}: {name}")
    return Reading(
        model=model or configs.MODELS[architecture],
        num_docs=config.read("n_docs", Count),
        max_input=config.read("max_combined_length", Positions),
        passage_template=f"{prefix}{{title}}{title_sep}{{text}}",
        question_template=f"{doc_sep}{{question}}",
        question_from_tower=config.read("question_from_tower", bool, True),
    )


def _tower(folder: Path, config: ConfigJson) -> TowerCheckpoint:
    stored = _tower_tokenizer(folder, config)
    return _tower_of(
        config, folder, stored, lambda: (tensor_names.normalize_names(read_tensors(folder)), ""), str(folder)
    )


def _gguf_tower(path: Path) -> TowerCheckpoint:
    config, tensors, tokenizer, _ = gguf.read(path)
    return _tower_of(config, path, tokenizer, lambda: (tensors, ""), str(path))


def _rag_tower(folder: Path, config: ConfigJson) -> TowerCheckpoint:
    nested, place = config.nested("question_encoder"), folder / "question_encoder_tokenizer"
    # A question tower, whatever its layout: RAG checkpoints have no passage tower.
    stored = _tower_tokenizer(place, nested)
    found = _tower_of(nested, place, stored, lambda: _rag_part(folder, "question_encoder."), str(folder))
    return replace(found, side="question")


def _tower_tokenizer(folder: Path, config: ConfigJson) -> tokenizers.Stored | None:
    stored = tokenizers.read(folder, config)
    return None if stored is None else stored._replace(tokenizer=with_lowercasing(stored.tokenizer, folder))


def _generator(folder: Path, config: ConfigJson) -> GeneratorCheckpoint:
    tokenizer, generation_config = tokenizers.read(folder, config), generation(folder, config)
    return _generator_of(
        config, tensor_names.normalize_names(read_tensors(folder)), "", tokenizer, generation_config, str(folder)
    )


def _gguf_generator(path: Path) -> GeneratorCheckpoint:
    config, tensors, tokenizer, generation_config = gguf.read(path)
    return _generator_of(config, tensors, "", tokenizer, generation_config, str(path))


def _rag_generator(folder: Path, config: ConfigJson) -> GeneratorCheckpoint:
    nested = config.nested("generator")
    tokenizer, generation_config = tokenizers.read(folder / "generator_tokenizer", nested), generation(folder, config)
    tensors, prefix = _rag_part(folder, "generator.")
    return _generator_of(nested, tensors, prefix, tokenizer, generation_config, str(folder))


def _layout(family: TowerFormat, tensors: Tensors, prefix: str) -> Layout:
    """The layout in which a tower is stored."""
    words = ((each, each.prefix + tensor_names.stored_name(WORDS, each.names)) for each in family.layouts)
    return next((each for each, name in words if prefix + name in tensors), family.layouts[0])


def _rag_part(folder: Path, part: str) -> tuple[Tensors, str]:
    """The tensors of a RAG checkpoint that belong to the part or to none, and the part's prefix."""
    tensors = tensor_names.normalize_names(read_tensors(folder))
    root = "rag." if any(name.startswith("rag.") for name in tensors) else ""
    others = tuple(f"{root}{other}" for other in ("question_encoder.", "generator.") if other != part)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(others)}, root + part


def _tower_of(
    config: ConfigJson,
    folder: Path,
    stored: tokenizers.Stored | None,
    read: Callable[[], tuple[Tensors, str]],
    source: str,
) -> TowerCheckpoint:
    """Load a tower in any layout of its family; `folder` holds the files of its pooling and input format, if any.

    `read` returns the tensors, and the prefix of the tower's.
    """
    family = registry.tower(config)
    sizes = family.read_config(config, folder)
    tensors, prefix = read()
    _check_layers(config, sizes, tensors)
    tensors = family.normalize(tensors, sizes, prefix, source)
    layout = _layout(family, tensors, prefix)
    shapes = jax.eval_shape(partial(family.architecture.init, sizes), jax.random.key(0))
    params = tensor_names.from_stored(tensors, shapes, layout.names, source=source, prefix=prefix + layout.prefix)
    tokenizer, settings = stored or (None, {})
    input_format = read_input_format(config, folder, family.passage(config))
    return TowerCheckpoint(sizes, params, tokenizer, _side(config, layout), settings, input_format)


def _side(config: ConfigJson, layout: Layout) -> Side | None:
    """The half of a bi-encoder: that of config.json, which saving here adds where the layout does not tell."""
    side = config.get("side", layout.side)
    if side not in (None, *get_args(Side)):
        raise InputError(f"{config.source}: side is {side!r}; give {' or '.join(get_args(Side))}, or null for both")
    return side


def _generator_of(
    config: ConfigJson,
    tensors: Tensors,
    prefix: str,
    stored: tokenizers.Stored | None,
    generation_config: Mapping[str, Any],
    source: str,
) -> GeneratorCheckpoint:
    family = registry.generator(config)
    sizes = family.read_config(config)
    tokenizer, settings = stored or (None, {})
    if tokenizer is not None:
        tokenizer = tokenizers.fit_to_vocabulary(tokenizer, sizes.vocab_size, source)
    _check_layers(config, sizes, tensors)
    tensors = family.normalize(tensors, sizes, prefix, source)
    shapes = jax.eval_shape(partial(family.architecture.init, sizes), jax.random.key(0))
    params = tensor_names.from_stored(tensors, shapes, family.names, source=source, prefix=prefix)
    return GeneratorCheckpoint(sizes, params, tokenizer, generation_config, settings)


def _check_layers(config: ConfigJson, sizes: TowerConfig | GeneratorConfig, tensors: Tensors) -> None:
    """Raise `InputError` for more layers than there are tensors, before a network of so many is laid out."""
    for name, value in vars(sizes).items():
        if name.endswith("layers") and value > len(tensors):
            what = f"{name} is {value}, and there are {len(tensors)} tensors in all"
            raise InputError(f"{config.source}: {what}; {REMEDY}")


def generation(folder: Path, config: ConfigJson) -> dict[str, Any]:
    """The settings in generation_config.json, or else those in config.json, as transformers reads them: what is missing
    has the default of the generator's family, and RAG's override its generator's.
    """
    path = folder / "generation_config.json"
    if path.exists():
        sources = [read_settings(path)]
    else:
        own = config.nested("generator") if config["model_type"] == RAG else config
        sources = [_generation_defaults(own), own, *([config] if own is not config else [])]
    values = {key: value for source in sources for key, value in source.items() if value is not None}
    return {key: value for key, value in values.items() if key in configs.GENERATION}


def _generation_defaults(config: ConfigJson) -> dict[str, Any]:
    """The settings that a generator's config.json leaves to its family. BART's had another name once."""
    defaults = {key: value for key, value in registry.generator(config).generation.items() if key not in config}
    if config.get("force_bos_token_to_be_generated") and "forced_bos_token_id" not in config:
        defaults["forced_bos_token_id"] = config.get("bos_token_id", 0)
    return defaults
