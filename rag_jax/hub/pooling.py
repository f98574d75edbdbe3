"""How a tower pools, as sentence-transformers writes it down: `modules.json` and the folders that it names."""

from pathlib import Path
from typing import Any, Literal

from rag_jax.errors import InputError
from rag_jax.hub.described import read_json
from rag_jax.models import bert


def read_pooling(folder: Path) -> tuple[Literal["cls", "mean"], float | None]:
    """How a sentence-transformers folder pools, and whether it normalises; [CLS] without such a description."""
    if not (folder / "modules.json").exists():
        return "cls", None
    modules = {module["type"].rpartition(".")[2]: module["path"] for module in read_json(folder / "modules.json")}
    pooling = read_json(folder / modules["Pooling"] / "config.json") if "Pooling" in modules else {}
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


def describe_pooling(config: bert.BertConfig) -> dict[str, Any]:
    """The files, by their place in the folder, that sentence-transformers reads a tower's pooling from."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    if config.vector_norm is not None:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    return {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": config.max_positions, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.width,
            "pooling_mode_cls_token": config.pooling == "cls",
            "pooling_mode_mean_tokens": config.pooling == "mean",
        },
    }
