"""What a config trains of each network: all of it, the parameters of certain names, or LoRA adapters.

A run's parameters are the networks' own, with adapters beside some kernels. Everything but training works with the
networks' own: the adapters are merged into them when a model is loaded or evaluated.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from rag_jax.config.config import Config, Lora
from rag_jax.core import lora, trainable
from rag_jax.core.variants import VARIANTS
from rag_jax.errors import InputError
from rag_jax.index.engines.registry import ENGINES
from rag_jax.types import Networks, Params, RagParams

NAMES_LISTED = 3  # parameters that an error message names


class FineTuning(NamedTuple):
    """What is trained of one network. `key` is its section of the config."""

    key: str
    is_trained: bool
    train: tuple[str, ...] | None
    lora: Lora

    @property
    def has_adapters(self) -> bool:
        return self.is_trained and self.lora.rank is not None

    def kernels(self, params: Params) -> list[str]:
        """The names of the kernels that have adapters."""
        return _matching(self.lora.targets, _kernels(params)) if self.has_adapters else []

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained, by its name."""
        if not self.is_trained:
            return False
        if name.rpartition("/")[2] in lora.ADAPTERS:
            return True
        if self.train is None:
            return not self.has_adapters
        return _matches(self.train, name)

    def mask(self, params: Params) -> PyTree[bool]:
        """Whether each parameter is trained; see `rag_jax.core.trainable`."""
        return jax.tree_util.tree_map_with_path(lambda path, _: self.trains(trainable.path_name(path)), params)

    def with_adapters(self, params: Params, key: jax.Array) -> Params:
        """The parameters that are trained, from the network's own: with new adapters."""
        kernels = self.kernels(params)
        return lora.init(params, kernels, self.lora.rank or 0, key) if kernels else params

    def check_settings(self) -> None:
        """Reject invalid patterns, which needs no network."""
        for name, patterns in (("train", self.train or ()), ("lora.targets", self.lora.targets)):
            _check_patterns(f"{self.key}.{name}", patterns)
        if self.lora.rank is not None and not self.lora.targets:
            raise InputError(f"{self.key}.lora.targets is empty, with a rank of {self.lora.rank}; name some kernels")

    def check_names(self, params: Params) -> None:
        """Reject patterns that match no parameter of a network or contradict each other, and a rank that is too large.

        `params` are the network's own, as arrays or as shapes.
        """
        names, kernels = trainable.names(params), _kernels(params)
        for pattern in self.train or ():
            _check_matches(f"{self.key}.train: {pattern!r} matches no parameter", pattern, names)
        for pattern in self.lora.targets if self.has_adapters else ():
            _check_matches(f"{self.key}.lora.targets: {pattern!r} matches no kernel", pattern, list(kernels))
        for name in self.kernels(params):
            rank, most = self.lora.rank or 0, min(kernels[name])
            if rank > most:
                shape = " x ".join(map(str, kernels[name]))
                raise InputError(f"{self.key}.lora.rank is {rank}, {name} is {shape}; give {most} or less")
            pattern = next((each for each in self.train or () if re.search(each, name)), None)
            if pattern is not None:
                problem = f"{self.key}.train: {pattern!r} matches {name}, which {self.key}.lora.targets match too"
                raise InputError(f"{problem}; train a kernel or its adapters")


def retriever_mode(config: Config) -> str:
    """The mode of the retriever; frozen where the prior of the question tower changes no loss.

    So it is where all passages are read together, only one is read, or the scores of the search engine are the prior.
    With a distillation the retriever does not learn from the prior.
    """
    c = config.retriever
    if c.mode != "trained" or c.distillation.objective != "none":
        return c.mode
    num_read, num_compared = config.generator.passages_per_prompt, c.prior_docs or c.num_docs
    together = VARIANTS[config.model].fuses or num_read >= c.num_docs > 1
    return "frozen" if together or num_compared == 1 or ENGINES[c.engine].scores_are_prior else "trained"


def of(config: Config) -> RagParams:
    """The `FineTuning` of each network; all of the passage tower is trained, or nothing."""
    retriever, generator = config.retriever, config.generator
    trains_tower = retriever_mode(config) == "trained" and not config.data.is_closed_book
    return RagParams(
        FineTuning("retriever", trains_tower, retriever.train, retriever.lora),
        FineTuning("generator", True, generator.train, generator.lora),
        FineTuning("retriever", True, None, Lora()) if retriever.train_passages else None,
    )


def mask(config: Config, params: RagParams) -> RagParams:
    """Whether each parameter is trained; see `rag_jax.core.trainable`."""
    return _of_each(FineTuning.mask, of(config), params)


def with_adapters(config: Config, params: RagParams) -> RagParams:
    """The parameters that a run trains, from the networks' own: new adapters, by the config's seed."""
    keys = RagParams(*jax.random.split(jax.random.fold_in(jax.random.key(config.seed), ADAPTERS)))
    return _of_each(FineTuning.with_adapters, of(config), params, keys)


def merged(config: Config, params: RagParams) -> RagParams:
    """The networks' own parameters, from those that a run trains."""
    plans = of(config)
    if not any(plan.has_adapters for plan in _plans(config)):
        return params
    return _merging(plans.question_tower.lora.alpha, plans.generator.lora.alpha)(params)


def adapted(config: Config, networks: Networks) -> Networks:
    """The networks as functions of the parameters that a run trains."""
    plans = of(config)
    tower, generator = plans.question_tower, plans.generator
    return Networks(
        lora.tower(networks.tower, tower.lora.alpha) if tower.has_adapters else networks.tower,
        lora.generator(networks.generator, generator.lora.alpha) if generator.has_adapters else networks.generator,
    )


def check(config: Config) -> None:
    """Reject contradictory settings and invalid patterns, which needs no network."""
    plans = of(config)
    for plan in _plans(config):
        asked = [f"{plan.key}.{name}" for name in ("train", "lora.rank") if _is_set(plan, name)]
        if asked and not plan.is_trained:
            mode = config.retriever.mode
            why = f"in retriever.mode {mode}" if mode != "trained" else "where its prior changes no loss"
            why = "without passages" if config.data.is_closed_book else why
            raise InputError(f"{asked[0]} is set, but {why} the question tower is not trained; leave it None")
        plan.check_settings()
    if config.retriever.train == () and not plans.question_tower.has_adapters:
        raise InputError("retriever.train is empty; freeze the question tower with retriever.mode frozen")
    if not any(plan.is_trained and (plan.train != () or plan.has_adapters) for plan in _plans(config)):
        raise InputError("nothing is trained in either network; give generator.train a pattern, or None")


def check_names(config: Config, params: RagParams) -> None:
    """Reject patterns that match no parameter of these networks or contradict each other, and a rank that is too large.

    `params` are the networks' own, as arrays or as shapes.
    """
    for plan, network in zip(of(config), params, strict=True):
        if plan is not None and plan.is_trained:
            plan.check_names(network)


def _plans(config: Config) -> list[FineTuning]:
    return [plan for plan in of(config) if plan is not None]


def _of_each(function: Callable[..., Any], plans: RagParams, *trees: RagParams) -> RagParams:
    """`function` of each network's plan and parameters; None for a passage tower that is not trained."""
    each = zip(plans, *trees, strict=True)
    return RagParams(*(None if plan is None else function(plan, *others) for plan, *others in each))


def _check_patterns(key: str, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{key}: {pattern!r} is not a regular expression ({error}); correct it") from None


def _check_matches(problem: str, pattern: str, names: Sequence[str]) -> None:
    if not _matching((pattern,), names):
        close = difflib.get_close_matches(pattern, names, n=NAMES_LISTED, cutoff=0.0)
        raise InputError(f"{problem}; there are {', '.join(close)} and {max(0, len(names) - len(close))} more")


def _is_set(plan: FineTuning, name: str) -> bool:
    return (plan.train if name == "train" else plan.lora.rank) is not None


def _kernels(params: Params) -> dict[str, tuple[int, ...]]:
    """The shapes of the matrices that can have adapters, by name."""
    leaves = ((trainable.path_name(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params))
    return {name: shape for name, shape in leaves if name.rpartition("/")[2] == lora.KERNEL and len(shape) == 2}


def _matching(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if _matches(patterns, name)]


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


@lru_cache
def _merging(tower: float, generator: float) -> Callable[[RagParams], RagParams]:
    """The compiled merge, the same one for equal scales."""

    def merge(params: RagParams) -> RagParams:
        merged = lora.merge(params.question_tower, tower), lora.merge(params.generator, generator)
        return RagParams(*merged, params.passage_tower)

    return jax.jit(merge)


ADAPTERS = 1_000_003  # a random stream apart from the others of the seed
