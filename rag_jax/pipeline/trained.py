"""What a run left in its workdir: the model at its newest checkpoint, its networks and its index opened again."""

from pathlib import Path

from rag_jax.config.config import load
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.pipeline import kept_tokenizers, pretrained
from rag_jax.pipeline.assembly import assemble
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Parts
from rag_jax.types import RagParams


def load_trained(workdir: Path, index: Path | None = None) -> tuple[Parts, RagParams]:
    """A trained model, over its own `index` or another; on one device where there are not as many as it was trained on.

    Raises `InputError` where there is none.
    """
    config = devices.at_hand(load(workdir / "config.json"))
    parts = assemble(pretrained.over(config, index), workdir)
    return parts, restore_params(workdir, parts)


def restore_params(workdir: Path, parts: Parts) -> RagParams:
    """The parameters of a workdir's newest checkpoint, for the networks and the tokenizers of `parts`.

    Raises `InputError` where there is none, and where it is of others.
    """
    params = None
    if (workdir / "checkpoints").is_dir():  # looking for checkpoints would make it
        kept_tokenizers.check(parts.towers, parts.vocabulary, workdir)
        checkpoints = Checkpoints(workdir)
        params = checkpoints.restore_params(parts.first)
        checkpoints.close()
    if params is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: python train.py CONFIG --workdir {workdir}")
    return params
