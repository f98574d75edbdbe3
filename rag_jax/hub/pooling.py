"""How a tower makes a vector of its states, in config.json or in the files of sentence-transformers.

| file | keys |
|---|---|
| `config.json` | `pooling`, `vector_norm`, `truncate_dim`, as `describe_pooling` writes them; these come first |
| `modules.json`, folder of its `Pooling` | `pooling_mode` since sentence-transformers 5.4, `pooling_mode_…` before |
| `config_sentence_transformers.json` | `truncate_dim`, `similarity_fn_name` |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

from rag_jax.data import files
from rag_jax.data.validation import Positive, validate_value
from rag_jax.errors import InputError
from rag_jax.hub.config_json import ConfigJson, read_json, read_settings
from rag_jax.models.architecture import TowerConfig
from rag_jax.models.pooling import Pooling

SETTINGS = "config_sentence_transformers.json"
COSINES = ("cosine", "cos_sim")
KEYS = {"pooling": "pooling", "vector_norm": "vector_norm", "truncated_width": "truncate_dim"}  # in config.json
# The names of a single mode, since sentence-transformers 5.4 and before.
POOLING_MODES: dict[tuple[str, ...], Pooling] = {
    ("cls",): "cls",
    ("mean",): "mean",
    ("lasttoken",): "last",
    ("pooling_mode_cls_token",): "cls",
    ("pooling_mode_mean_tokens",): "mean",
    ("pooling_mode_lasttoken",): "last",
}


class PooledTowerConfig(TowerConfig, Protocol):
    """The config of a tower with a pooling mode."""

    @property
    def width(self) -> int: ...

    @property
    def pooling(self) -> Pooling: ...

    @property
    def truncated_width(self) -> int | None: ...


class VectorSettings(NamedTuple):
    """The fields of a `PooledTowerConfig` that say how states become a vector."""

    pooling: Pooling
    vector_norm: float | None
    truncated_width: int | None


def read_vector_settings(config: ConfigJson, folder: Path, width: int, default: Pooling) -> VectorSettings:
    """Read how a tower makes its vectors, of `width` components before they are truncated.

    `default` is the pooling of a folder that does not state it. Raises `InputError` for a pooling that is not supported
    for a similarity, and for a width that the vectors do not have.
    """
    (pooling, norm), stored = read_pooling(folder, default), _settings(folder)
    similarity = stored.get("similarity_fn_name")
    if similarity not in (None, "dot", *COSINES):
        what = f"similarity_fn_name is {similarity!r}"
        raise InputError(f"{folder / SETTINGS}: {what}; give a tower for cosines or dot products")
    if similarity in COSINES:  # the product of vectors of norm one, with or without a module that makes them so
        norm = 1.0
    found = {"pooling": pooling, "vector_norm": norm, "truncated_width": stored.get("truncate_dim")}
    settings = VectorSettings(**{ours: config.get(key, found[ours]) for ours, key in KEYS.items()})
    if settings.vector_norm is not None:
        validate_value(Positive, settings.vector_norm, "vector_norm", f"{config.source}: ")
    if settings.pooling not in get_args(Pooling):
        known = " or ".join(get_args(Pooling))
        raise InputError(f"{config.source}: pooling is {settings.pooling!r}, which is not known; give {known}")
    short = settings.truncated_width
    if short is not None and not (type(short) is int and 1 <= short <= width):
        what = f"truncate_dim is {short!r} for vectors of width {width}"
        raise InputError(f"{config.source} or {folder / SETTINGS}: {what}; give 1 to {width}, or null for all")
    return settings


def read_pooling(folder: Path, default: Pooling = "cls") -> tuple[Pooling, float | None]:
    """Read the pooling mode and the norm of a folder; `default` and None if it is not from sentence-transformers."""
    path = folder / "modules.json"
    if not path.exists():
        return default, None
    modules = _modules(path)
    config = _pooling(folder, modules)
    modes = ("cls",) if config is None else _modes(config)
    surplus = modules.keys() - {"Transformer", "Pooling", "Normalize"}
    if surplus:
        raise InputError(f"{path}: {', '.join(sorted(surplus))} is not known here; use a tower without it")
    if modes not in POOLING_MODES:
        raise InputError(f"{folder}: pooling by {' and '.join(modes)} is not known; use cls, mean or lasttoken pooling")
    return POOLING_MODES[modes], (1.0 if "Normalize" in modules else None)


def pools_prompts(folder: Path) -> bool:
    """Whether the tokens of a prompt are pooled too, which is the default."""
    path = folder / "modules.json"
    config = _pooling(folder, _modules(path)) if path.exists() else None
    return config is None or config.read("include_prompt", bool, True)


def describe_pooling(config: PooledTowerConfig) -> dict[str, Any]:
    """The entries of config.json, which hold what the modules below cannot: a norm other than one, and a width."""
    return {key: getattr(config, ours) for ours, key in KEYS.items()}


def describe_modules(config: PooledTowerConfig) -> dict[str, Any]:
    """The JSON files, by path, of the modules of sentence-transformers; every version reads these names."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if config.vector_norm is not None else [])]
    paths = ["", *(f"{n}_{kind}" for n, kind in enumerate(kinds[1:], 1))]
    root = "sentence_transformers.models"
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"{root}.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    return {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.width,
            "pooling_mode_cls_token": config.pooling == "cls",
            "pooling_mode_mean_tokens": config.pooling == "mean",
            "pooling_mode_lasttoken": config.pooling == "last",
        },
    }


def _settings(folder: Path) -> Mapping[str, Any]:
    """The settings of sentence-transformers."""
    return read_settings(folder / SETTINGS) if (folder / SETTINGS).exists() else {}


def _modules(path: Path) -> dict[str, str]:
    modules = validate_value(tuple[dict[str, Any], ...], read_json(path), "the list of modules", f"{path}: ")
    each = [ConfigJson(str(path), module) for module in modules]
    return {module.read("type", str).rpartition(".")[2]: module.read("path", str) for module in each}


def _pooling(folder: Path, modules: Mapping[str, str]) -> ConfigJson | None:
    if "Pooling" not in modules:
        return None
    return read_settings(files.inside(folder, f"{modules['Pooling']}/config.json", folder / "modules.json"))


def _modes(config: ConfigJson) -> tuple[str, ...]:
    """The pooling modes, whose results are concatenated; the mean by default."""
    older = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    modes = config.read("pooling_mode", str | tuple[str, ...], "") or older or "mean"
    return (modes,) if isinstance(modes, str) else tuple(modes)
