"""Networks from folders in the Hugging Face ecosystem's layout (config.json and model.safetensors)."""

import json
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from rag_jax.errors import InputError
from rag_jax.hub import names
from rag_jax.models import bart, bert
from rag_jax.types import Params


def load_tower(folder: Path) -> tuple[bert.BertConfig, Params]:
    """A BERT encoder and its pooling: DPR's [CLS], or what a sentence-transformers `modules.json` says.

    Raises `InputError` for a missing, unreadable or ill-fitting checkpoint.
    """
    config = _read_config(folder, {"bert", "dpr"})
    _require(config, hidden_act="gelu", position_embedding_type="absolute")
    pooling, norm = _pooling(folder)
    ours = bert.BertConfig(
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        ffn_width=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        token_types=config["type_vocab_size"],
        dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"],
        layer_norm_eps=config["layer_norm_eps"],
        pooling=pooling,
        projection=config.get("projection_dim") or None,
        vector_norm=norm,
    )
    tensors = read_tensors(folder)
    found = (p for p, table in _BERT_LAYOUTS.items() if p + names.stored_name("word/embedding", table) in tensors)
    prefix = next(found, "")
    shapes = jax.eval_shape(partial(bert.init, ours), jax.random.key(0))
    return ours, names.from_stored(tensors, shapes, _BERT_LAYOUTS[prefix], where=str(folder), prefix=prefix)


def load_generator(folder: Path) -> tuple[bart.BartConfig, Params]:
    """BART with its tied head. Raises `InputError` for a missing, unreadable or ill-fitting checkpoint."""
    config = _read_config(folder, {"bart"})
    _require(config, activation_function="gelu")
    for name in ("attention_heads", "ffn_dim"):  # one size here for both halves
        _require(config, **{f"decoder_{name}": config[f"encoder_{name}"]})
    ours = bart.BartConfig(
        vocab_size=config["vocab_size"],
        width=config["d_model"],
        encoder_layers=config["encoder_layers"],
        decoder_layers=config["decoder_layers"],
        heads=config["encoder_attention_heads"],
        ffn_width=config["encoder_ffn_dim"],
        max_positions=config["max_position_embeddings"],
        dropout=config["dropout"],
        attention_dropout=config["attention_dropout"],
        activation_dropout=config["activation_dropout"],
        scale_embedding=config["scale_embedding"],
    )
    tensors = read_tensors(folder)
    if "shared.weight" in tensors:  # saved without the head, which is tied
        tensors = {f"model.{name}": value for name, value in tensors.items()}
    tensors.setdefault("final_logits_bias", np.zeros(ours.vocab_size, np.float32))
    shapes = jax.eval_shape(partial(bart.init, ours), jax.random.key(0))
    return ours, names.from_stored(tensors, shapes, names.BART, where=str(folder))


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the folder's model.safetensors; a tied one under each of its names, which the metadata gives."""
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            tied = file.metadata() or {}
        return tensors | {name: tensors[stored] for name, stored in tied.items() if stored in tensors}
    except FileNotFoundError:
        raise InputError(f"{path}: no weights there; give a folder that holds model.safetensors") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from None


_BERT_LAYOUTS = {"": names.BERT, "bert.": names.BERT, "question_encoder.": names.DPR, "ctx_encoder.": names.DPR}


class _Stored(dict):
    """A config.json; a key that is asked for and missing is the user's to mend."""

    def __init__(self, path: Path, values: dict):
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str):
        raise InputError(f"{self.path}: has no {key!r}; take the config.json that was saved with the weights")


def _read_config(folder: Path, architectures: set[str]) -> _Stored:
    path = folder / "config.json"
    config = _read_json(path)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in architectures:
        raise InputError(f"{path}: model_type is {found!r}, needed is {' or '.join(sorted(architectures))}")
    return _Stored(path, config)


def _require(config: _Stored, **values: object) -> None:
    """Refuse settings that the networks here do not have; a missing one is the usual."""
    for key, value in values.items():
        if config.get(key, value) != value:
            raise InputError(f"{config.path}: {key} is {config[key]!r}; only {value!r} is known here")


def _pooling(folder: Path) -> tuple[Literal["cls", "mean"], float | None]:
    """How a sentence-transformers folder pools, and whether it normalises; [CLS] without such a description."""
    if not (folder / "modules.json").exists():
        return "cls", None
    modules = {module["type"].rpartition(".")[2]: module["path"] for module in _read_json(folder / "modules.json")}
    pooling = _read_json(folder / modules["Pooling"] / "config.json") if "Pooling" in modules else {}
    if modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        surplus = ", ".join(sorted(modules.keys() - {"Transformer", "Pooling", "Normalize"}))
        raise InputError(f"{folder / 'modules.json'}: {surplus} is not known here; use a tower without it")
    unknown = {key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True}
    unknown -= {"pooling_mode_cls_token", "pooling_mode_mean_tokens"}
    both = pooling.get("pooling_mode_mean_tokens") and pooling.get("pooling_mode_cls_token")
    if unknown or both:
        unknown = unknown or {"cls and mean together"}
        raise InputError(f"{folder}: pooling by {', '.join(sorted(unknown))} is not known; use cls or mean pooling")
    return ("mean" if pooling.get("pooling_mode_mean_tokens") else "cls"), (1.0 if "Normalize" in modules else None)


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a folder that holds a checkpoint") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; copy or download it again") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}); copy or download it again") from None
