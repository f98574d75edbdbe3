"""The distillation of a config: from the reader into the question tower, by `rag_jax.core.distillation`."""

from functools import partial

from rag_jax.config.config import Config
from rag_jax.core import distillation
from rag_jax.core.distillation import Distillation
from rag_jax.core.variants import VARIANTS
from rag_jax.errors import InputError
from rag_jax.index.engines.registry import ENGINES
from rag_jax.models.architecture import changed_fields
from rag_jax.types import Networks

WITH_TEACHER = {  # objectives that compare p_R with a distribution of the reader's
    "pdist": distillation.pdist,
    "loop": distillation.loop,
    "adist": distillation.adist,
    "lsr": distillation.lsr,
}


def of(config: Config, networks: Networks) -> Distillation | None:
    """The objective; None where the retriever learns from the model's likelihood.

    Raises `InputError` for a generator that lacks what it needs.
    """
    c = config.retriever.distillation
    if c.objective == "none":
        return None
    if c.objective == "adist" and networks.generator.cross_attention is None:
        raise InputError("generator: its network does not report its attention; give it Generator.cross_attention")
    if c.objective == "emdr2":
        return partial(distillation.emdr2, temperature=c.temperature)
    return partial(WITH_TEACHER[c.objective], temperature=c.temperature, teacher_temperature=c.teacher_temperature)


def check(config: Config) -> None:
    """Reject a distillation that has nothing to learn from, or to teach."""
    c, retriever = config.retriever.distillation, config.retriever
    if c.objective == "none":
        for name, value in changed_fields(c).items():
            problem = f"retriever.distillation.{name} is {value}, but the objective is none"
            raise InputError(f"{problem}; give retriever.distillation.objective too, or leave it out")
        return
    asked, together = f"retriever.distillation.objective is {c.objective}", config.generator.passages_per_prompt
    if config.data.is_closed_book:
        raise InputError(f"{asked}, but a closed-book run has no retriever; give it none, or data.passages")
    if retriever.mode != "trained":
        raise InputError(f"{asked}, but retriever.mode is {retriever.mode}; give it none, or the mode trained")
    if ENGINES[retriever.engine].scores_are_prior:
        raise InputError(f"{asked}, but scores of the engine {retriever.engine} are not learnt; give another engine")
    if together > 1:
        raise InputError(f"{asked}, but generator.passages_per_prompt is {together}; give 1, to read each by itself")
    if retriever.num_docs == 1:
        raise InputError(f"{asked}, but retriever.num_docs is 1: there is nothing to compare; give 2 or more")
    if c.objective == "adist" and not VARIANTS[config.model].fuses:
        raise InputError(f"{asked}, but model {config.model} does not attend to its passages together; give model fid")
    if c.objective == "emdr2" and c.teacher_temperature != 1:
        problem = f"retriever.distillation.teacher_temperature is {c.teacher_temperature}"
        raise InputError(f"{problem}, but the objective emdr2 has none; leave it 1")
