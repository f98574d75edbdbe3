"""What a run left in its workdir: the model at its newest checkpoint, its networks and its index opened again."""

from pathlib import Path

from rag_jax.config.files import load_config
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.pipeline import kept_tokenizers, pretrained
from rag_jax.pipeline.assembly import assemble
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams


def load_trained(workdir: Path, index: Path | None = None) -> tuple[Components, RagParams]:
    """A trained model, over its own `index` or another; on one device where there are not as many as it was trained on.

    Raises `InputError` where there is none.
    """
    config = devices.fit_to_devices(load_config(workdir / "config.json"))
    components = assemble(pretrained.over(config, index), workdir)
    return components, restore_params(workdir, components)


def restore_params(workdir: Path, components: Components) -> RagParams:
    """The parameters of a workdir's newest checkpoint, for the networks and the tokenizers of `components`.

    Raises `InputError` where there is none, and where it is of others.
    """
    params = None
    if (workdir / "checkpoints").is_dir():  # looking for checkpoints would make it
        kept_tokenizers.check(components.bi_encoder, components.generator_tokenizer, workdir)
        checkpoints = Checkpoints(workdir)
        params = checkpoints.restore_params(components.initial_params)
        checkpoints.close()
    if params is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: rag-jax train CONFIG --workdir {workdir}")
    return params
