"""Optimizers: optax transformations over `RagParams`, with a learning rate per network."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from rag_jax.core.lora import ADAPTERS, KERNEL
from rag_jax.core.trainable import path_name
from rag_jax.types import Params, RagParams


def adamw(learning_rate: optax.ScalarOrSchedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) without decay on biases and LayerNorms."""
    return optax.adamw(learning_rate, b2=0.999, eps=1e-8, weight_decay=weight_decay, mask=is_weight)


def muon(
    learning_rate: optax.ScalarOrSchedule, adam_learning_rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for matrices inside the network, NAdam for embeddings, heads, biases and LayerNorms.

    The weight decay is Muon's alone. LoRA's adapters count as matrices. From scratch it needs far fewer steps than
    AdamW; for pretrained networks AdamW is better.
    """
    return optax.contrib.muon(
        learning_rate,
        adam_learning_rate=adam_learning_rate,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=_kernels,
        consistent_rms=None,
    )


def rag(
    question_tower: optax.GradientTransformation,
    generator: optax.GradientTransformation,
    clip: float,
    passage_tower: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Clip the gradient by its norm over all parameters, then update each network by its own transformation.

    Args:
        passage_tower: None: it is not trained.
    """
    labels = RagParams("question_tower", "generator")
    parts: dict[Hashable, optax.GradientTransformation] = {"question_tower": question_tower, "generator": generator}
    if passage_tower is not None:
        labels = labels._replace(passage_tower="passage_tower")
        parts["passage_tower"] = passage_tower
    return optax.chain(optax.clip_by_global_norm(clip), optax.partition(parts, labels))


def warmup_linear_decay(peak: float, warmup: int, steps: int) -> optax.Schedule:
    """Linear warmup from zero to `peak` in `warmup` steps, then linear decay to zero at step `steps`."""
    up = optax.linear_schedule(0.0, peak, warmup)
    down = optax.linear_schedule(peak, 0.0, max(1, steps - warmup))
    return optax.join_schedules([up, down], [warmup])


def is_weight(params: Params) -> PyTree[bool]:
    """True for kernels, adapters and embeddings, False for biases and LayerNorm scales."""
    return _by_name(params, lambda name: name.rpartition("/")[2] in (KERNEL, *ADAPTERS, "embedding"))


def _kernels(params: Params) -> PyTree:
    def dimensions(name: str):
        *modules, leaf = name.split("/")
        is_inside = leaf in (KERNEL, *ADAPTERS) and modules[-1:] != [HEAD]
        return optax.contrib.MuonDimensionNumbers() if is_inside else None

    return _by_name(params, dimensions)


HEAD = "head"  # the module of an untied output embedding


def _by_name(params: Params, choose: Callable[[str], Any]) -> PyTree:
    """`choose` applied to every leaf's name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: choose(path_name(path)), params)
