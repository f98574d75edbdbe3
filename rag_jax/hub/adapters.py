"""LoRA adapters in the layout of peft: `adapter_config.json` and `adapter_model.safetensors`.

A tensor is named after torch's module: `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r],
the transposes of ours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rag_jax.core import lora
from rag_jax.data.outputs import check_new_folder
from rag_jax.errors import InputError
from rag_jax.hub import marker
from rag_jax.hub.config_json import Scale, Width, read_settings, write_json
from rag_jax.hub.locate import resolve
from rag_jax.hub.saving import written_whole
from rag_jax.hub.tensor_names import TensorNames, stored_name
from rag_jax.hub.tensors import Stored, read_safetensors, write_tensors
from rag_jax.types import Params

CONFIG, TENSORS = "adapter_config.json", "adapter_model"
ROOT = "base_model.model."
PARTS = {lora.A: "lora_A.weight", lora.B: "lora_B.weight"}
# The only settings of peft that are supported.
ONLY: Mapping[str, Any] = {
    **{"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "use_dora": False, "lora_bias": False},
    **{"modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None},
    **{"use_qalora": False, "alora_invocation_tokens": None, "target_parameters": None},
}
# Initialisations that change the base, to which the adapter then belongs.
CHANGING_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Modules(NamedTuple):
    """The names of torch's modules: of a family's tensors, below a prefix."""

    names: TensorNames
    prefix: str = ""
    below_a_head: str = ""  # a prefix more, where the same network is part of a model with a head

    def of(self, kernel: str) -> str:
        """The module whose weight is our kernel ("layer_0/up/kernel")."""
        return self.prefix + stored_name(kernel, self.names).removesuffix(".weight")

    def spellings(self, kernel: str) -> tuple[str, ...]:
        """The names that an adapter may have for the module."""
        return tuple(dict.fromkeys((self.of(kernel), self.below_a_head + self.of(kernel))))


class Description(NamedTuple):
    """What an adapter's config says about its base and its use."""

    base: str | None  # a folder, or a repository of the hub; None: no published checkpoint
    task: str  # peft's task type, as SEQ_2_SEQ_LM


def save(folder: str | Path, params: Params, alpha: float, modules: Modules, description: Description) -> None:
    """Write the adapters among the parameters as a folder that peft's `PeftModel.from_pretrained` loads.

    The folder is written atomically. Raises `InputError` for a folder that is not empty.
    """
    check_new_folder(Path(folder))
    write(Path(folder), params, alpha, modules, description)


def write(folder: Path, params: Params, alpha: float, modules: Modules, description: Description) -> None:
    """`save` for a folder that is the library's own, as inside a workdir: the caller knows that it is new."""
    flat: dict[str, Any] = flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    kernels = [f"{path.removesuffix(lora.A)}{lora.KERNEL}" for path in flat if path.endswith(f"/{lora.A}")]
    tensors = {
        f"{ROOT}{modules.of(kernel)}.{theirs}": flat[f"{kernel.removesuffix(lora.KERNEL)}{ours}"].T
        for kernel in kernels
        for ours, theirs in PARTS.items()
    }
    config = {
        "peft_type": "LORA",
        "task_type": description.task,
        "base_model_name_or_path": description.base,
        "r": flat[f"{kernels[0].removesuffix(lora.KERNEL)}{lora.A}"].shape[1],
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(map(modules.of, kernels)),
    }
    with written_whole(folder) as side:
        write_tensors(side, tensors, stem=TENSORS)
        write_json(side / CONFIG, config)


def load(source: str | Path, params: Params, modules: Modules) -> Params:
    """The parameters of the base with the adapters of a folder, or of a repository of the hub, merged into them.

    Raises `InputError` for a folder without adapters, for settings that are not supported, and for adapters of another
    base.
    """
    folder = resolve(source)
    for name in (CONFIG, f"{TENSORS}.safetensors"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: holds no {name}; give a folder in which peft saved a LoRA adapter")
    marker.verify(folder)
    config = read_settings(folder / CONFIG)
    config.require(**{name: value for name, value in ONLY.items() if config.get(name)})
    start = config.get("init_lora_weights", True)
    if str(start).lower().startswith(CHANGING_BASE):
        remedy = "save it with peft's path_initial_model_for_weight_conversion, which makes it one of the base"
        raise InputError(f"{folder / CONFIG}: init_lora_weights is {start!r}, which changed the base; {remedy}")
    tensors = read_safetensors(folder / f"{TENSORS}.safetensors")
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    kernels = [path for path, leaf in flat.items() if path.endswith(f"/{lora.KERNEL}") and leaf.ndim == 2]
    found = _paired(tensors, kernels, modules)
    rank = config.read("r", Width)
    _check(folder, tensors, found, flat, rank)
    for kernel, (a, b) in found.items():
        module = kernel.removesuffix(lora.KERNEL)
        flat[module + lora.A], flat[module + lora.B] = (_read(each, f"{folder}: {kernel}") for each in (a, b))
    alpha = config.read("lora_alpha", Scale) * (rank**0.5 if config.read("use_rslora", bool, False) else 1)
    return lora.merge(unflatten_dict(flat, sep="/"), alpha)


def _paired(
    tensors: Mapping[str, Stored], kernels: Sequence[str], modules: Modules
) -> dict[str, tuple[Stored, Stored]]:
    """The adapters of each kernel that has both."""
    names = [
        (kernel, [f"{ROOT}{module}.{part}" for part in PARTS.values()])
        for kernel in kernels
        for module in modules.spellings(kernel)
    ]
    return {kernel: (tensors[a], tensors[b]) for kernel, (a, b) in names if a in tensors and b in tensors}


def _check(
    folder: Path,
    tensors: Mapping[str, Stored],
    found: Mapping[str, tuple[Stored, Stored]],
    flat: Mapping[str, Any],
    rank: int,
) -> None:
    """Raise `InputError` where a tensor belongs to no kernel, or to one of another shape."""
    used = {id(each) for pair in found.values() for each in pair}
    unknown = [name for name, tensor in tensors.items() if id(tensor) not in used]
    complaints = [f"{name} belongs to no matrix there" for name in unknown]
    for kernel, (a, b) in found.items():
        width, out = flat[kernel].shape
        if (a.shape, b.shape) != ((rank, width), (out, rank)):
            complaints.append(f"{kernel} is {width} x {out}, its adapters {a.shape} and {b.shape} of rank {rank}")
    if complaints or not found:
        more = f" and {len(complaints) - 1} more" if complaints[1:] else ""
        what = complaints[0] + more if complaints else "it has no tensors"
        raise InputError(f"{folder}: an adapter of another network ({what}); give one that was trained on this base")


def _read(tensor: Stored, source: str) -> jax.Array:
    value = tensor.read().astype(np.float32).T
    if not np.isfinite(value).all():
        raise InputError(f"{source}: its adapter holds NaN or infinity; copy or download it again, or give another")
    return jnp.asarray(value)
