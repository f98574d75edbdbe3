"""Load a trained model from its workdir: the newest checkpoint, the networks and the index."""

from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.config.files import load_config
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.pipeline import finetuning, workdir_tokenizers
from rag_jax.pipeline.assembly import assemble
from rag_jax.pipeline.checkpoints import Checkpoints, replaced
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams


def load_trained(workdir: Path, index: Path | None = None, tokens: bool = True) -> tuple[Components, RagParams]:
    """A trained model with its own index or another; on one device where fewer are available than in training.

    Raises `InputError` where there is no checkpoint.

    Args:
        tokens: with the passages' tokens, which are made in memory where the index has none of this generator; False:
            for a model that is neither asked nor searched.
    """
    components = load_components(workdir, index, tokens)
    return components, restore_params(workdir, components)


def load_components(workdir: Path, index: Path | None = None, tokens: bool = True) -> Components:
    """The components of a trained model, with their initial parameters; see `load_trained`."""
    return assemble(devices.fit_to_devices(load_config(workdir / "config.json")), workdir, index, tokens)


def restore_params(workdir: Path, components: Components) -> RagParams:
    """The networks' parameters in a workdir's newest checkpoint, adapters merged into them. Raises as `restore`."""
    params = restore(workdir, components)
    return finetuning.merged(load_config(workdir / "config.json"), params)


def restore(workdir: Path, components: Components) -> RagParams:
    """The parameters of a workdir's newest checkpoint, or that of the components, with the adapters of its run.

    Raises `InputError` where there is none, and for networks or tokenizers other than those of `components`.
    """
    params, step = None, components.step
    if (workdir / "checkpoints").is_dir():  # Checkpoints creates the folder
        config = load_config(workdir / "config.json")  # first: it tells what kind of run this is
        workdir_tokenizers.check(components.bi_encoder, components.generator_tokenizer, workdir)
        checkpoints = Checkpoints(workdir)
        like = finetuning.with_adapters(config, _networks_trained(config, components.initial_params, workdir))
        params = checkpoints.restore_params(like) if step is None else checkpoints.params_at(step, like)
        checkpoints.close()
    if params is None and step is not None:
        raise replaced(workdir, step)
    if params is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: rag-jax train CONFIG --workdir {workdir}")
    return params


def _networks_trained(config: Config, params: RagParams, workdir: Path) -> RagParams:
    """Some networks' parameters, those that a run of this config trains."""
    if not config.retriever.train_passages:
        return params._replace(passage_tower=None)
    if params.passage_tower is None:
        raise InputError(f"{workdir}: its passage tower is trained; give retriever.train_passages here too")
    return params
