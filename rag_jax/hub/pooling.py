"""The pooling of a tower in the files of sentence-transformers: `modules.json` and the folders that it lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from rag_jax.errors import InputError
from rag_jax.hub.config_json import read_json
from rag_jax.models.architecture import TowerConfig

Pooling = Literal["cls", "mean"]

# The names of a single mode, since sentence-transformers 5.4 and before.
POOLING_MODES: dict[tuple[str, ...], Pooling] = {
    ("cls",): "cls",
    ("mean",): "mean",
    ("pooling_mode_cls_token",): "cls",
    ("pooling_mode_mean_tokens",): "mean",
}


class PooledTowerConfig(TowerConfig, Protocol):
    """The config of a tower with a pooling mode."""

    @property
    def width(self) -> int: ...

    @property
    def pooling(self) -> Pooling: ...


def read_pooling(folder: Path) -> tuple[Pooling, float | None]:
    """Read the pooling mode and the norm of a folder; [CLS] and None if it is not from sentence-transformers."""
    path = folder / "modules.json"
    if not path.exists():
        return "cls", None
    try:
        modules = _modules(path)
        config = _pooling(folder, modules)
        modes = ("cls",) if config is None else _modes(config)
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: does not say how the tower pools; copy or download the folder again") from None
    surplus = modules.keys() - {"Transformer", "Pooling", "Normalize"}
    if surplus:
        raise InputError(f"{path}: {', '.join(sorted(surplus))} is not known here; use a tower without it")
    if modes not in POOLING_MODES:
        raise InputError(f"{folder}: pooling by {' and '.join(modes)} is not known; use cls or mean pooling")
    return POOLING_MODES[modes], (1.0 if "Normalize" in modules else None)


def pools_prompts(folder: Path) -> bool:
    """Whether the tokens of a prompt are pooled too, which is the default."""
    path = folder / "modules.json"
    config = _pooling(folder, _modules(path)) if path.exists() else None
    return config is None or config.get("include_prompt", True) is not False


def describe_pooling(config: PooledTowerConfig, max_length: int | None = None) -> dict[str, Any]:
    """The JSON files, by path, that configure a tower's pooling in sentence-transformers."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    if config.vector_norm is not None:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    return {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length or config.max_positions, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.width,
            "pooling_mode_cls_token": config.pooling == "cls",
            "pooling_mode_mean_tokens": config.pooling == "mean",
        },
    }


def _modules(path: Path) -> dict[str, str]:
    return {module["type"].rpartition(".")[2]: module["path"] for module in read_json(path)}


def _pooling(folder: Path, modules: Mapping[str, str]) -> Mapping[str, Any] | None:
    return read_json(folder / modules["Pooling"] / "config.json") if "Pooling" in modules else None


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The pooling modes, whose results are concatenated; the mean by default."""
    older = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    modes = config.get("pooling_mode") or older or "mean"
    return (modes,) if isinstance(modes, str) else tuple(modes)
