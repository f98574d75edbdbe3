"""What a training step is composed of."""

from typing import NamedTuple

import optax

from rag_jax.core.distillation import Distillation
from rag_jax.core.losses import Objective
from rag_jax.core.modes import Retrieve, retrieve_nearest
from rag_jax.core.reading import InputLayout
from rag_jax.core.refresh import Refresh
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.core.trainable import Mask, everything
from rag_jax.types import Networks


class Recipe(NamedTuple):
    """The parts of a training step.

    `num_microbatches` trades time for memory: gradients are accumulated over the microbatches, and the update is that
    of the whole batch. Like packing (see `InputLayout`) it changes which dropout masks are drawn, and nothing else.

    With a `distillation` the loss is objective + weight * distillation. The objective then trains the generator alone,
    under the prior as a constant, and the distillation the retriever alone.
    """

    networks: Networks
    objective: Objective
    optimizer: optax.GradientTransformation
    num_docs: int  # K
    layout: InputLayout
    retrieve: Retrieve = retrieve_nearest
    lookup: Index = LOCAL
    num_microbatches: int = 1
    trainable: Mask = everything  # the others get neither gradient nor optimizer state
    distillation: Distillation | None = None  # None: the retriever learns from the objective
    distillation_weight: float = 1.0
    prior_docs: int | None = None  # N, the passages that the prior is over, of which the K best are read; None: K
    refresh: Refresh | None = None  # None: the passage tower is not trained
