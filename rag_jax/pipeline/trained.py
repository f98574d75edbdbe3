"""Load a trained model from its workdir: the newest checkpoint, the networks and the index."""

from pathlib import Path

from rag_jax.config.files import load_config
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.pipeline import pretrained, workdir_tokenizers
from rag_jax.pipeline.assembly import assemble
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams


def load_trained(workdir: Path, index: Path | None = None) -> tuple[Components, RagParams]:
    """A trained model with its own index or another; on one device where fewer are available than in training.

    Raises `InputError` where there is no checkpoint.
    """
    config = devices.fit_to_devices(load_config(workdir / "config.json"))
    components = assemble(pretrained.with_index(config, index), workdir)
    return components, restore_params(workdir, components)


def restore_params(workdir: Path, components: Components) -> RagParams:
    """The parameters of a workdir's newest checkpoint.

    Raises `InputError` where there is none, and for networks or tokenizers other than those of `components`.
    """
    params = None
    if (workdir / "checkpoints").is_dir():  # Checkpoints creates the folder
        workdir_tokenizers.check(components.bi_encoder, components.generator_tokenizer, workdir)
        checkpoints = Checkpoints(workdir)
        params = checkpoints.restore_params(components.initial_params)
        checkpoints.close()
    if params is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: rag-jax train CONFIG --workdir {workdir}")
    return params
