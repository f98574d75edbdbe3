"""What a contrastive run starts from: the towers of its checkpoints, or those of the run that `start_from` names."""

from pathlib import Path

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import load_config_of
from rag_jax.contrastive import towers
from rag_jax.contrastive.towers import Towers
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError, warn
from rag_jax.hub import configs, loading, tokenizers
from rag_jax.pipeline import checkpoint_folders
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.training.provenance import may_have_begun_from
from rag_jax.training.workdir import CONFIG
from rag_jax.types import BiEncoderParams


def start_params(config: ContrastiveConfig, loaded: Towers, begun: bool) -> BiEncoderParams | None:
    """The parameters of the run named by `start_from`, as it saved them, if any. A resumed run does not need them."""
    source = config.start_from
    if source is None or (begun and not (source / "checkpoints").is_dir()):
        return None
    theirs = load_config_of(ContrastiveConfig, source / CONFIG)
    trained, ours = theirs.retriever.trained, config.retriever.trained
    if (trained == "shared") != (ours == "shared"):
        remedy = f"name the towers instead of start_from: --retriever.tower {source / checkpoint_folders.TOWERS}"
        raise InputError(f"{source}: its retriever.trained is {trained}, this config's {ours}; {remedy}")
    if not begun:
        _check_same_towers(source, loaded)
    found = None
    if (source / "checkpoints").is_dir():  # Checkpoints creates the folder
        checkpoints = Checkpoints(source)
        found = checkpoints.restore_params(loaded.params)
        checkpoints.close()
    if found is None:
        raise InputError(f"{source}: no checkpoint there; train it first, or leave start_from out")
    share = theirs.retriever.interpolation
    if share == 1:
        return found
    try:
        return towers.load(theirs).interpolated(found, share)
    except InputError:
        if begun:  # its checkpoints may be gone as well
            return None
        raise


def _check_same_towers(source: Path, loaded: Towers) -> None:
    """Raise `InputError` where the towers of a run read other tokens or pool otherwise than these."""
    for name, ours in loaded.checkpoints(loaded.params).items():
        folder = source / checkpoint_folders.TOWERS / name
        if not (folder / "config.json").exists():
            continue  # not finished, or trained otherwise: the parameters' shapes are compared
        stored = tokenizers.read(folder, configs.read_config(folder))
        known = [None if each is None else fingerprint(each) for each in (stored and stored.tokenizer, ours.tokenizer)]
        poolings = [getattr(each, "pooling", None) for each in (loading.describe_tower(folder), ours.config)]
        differs = {
            "tokenizer": None not in known and known[0] != known[1],
            "pooling": poolings[0] != poolings[1],
        }
        odd = [name for name, is_other in differs.items() if is_other]
        if odd:
            problem = f"its towers have another {' and another '.join(odd)} than this config's"
            raise InputError(f"{source}: {problem}; give retriever.tower as that run had it")


def towers_before(
    config: ContrastiveConfig, loaded: Towers, first: BiEncoderParams | None, host_state: HostState | None
) -> Towers | None:
    """The towers that training starts from, as `data.index` must be by them. None: there is no index, or, with a
    warning, they are unknown: a run that has begun goes on without that of `start_from`, which may also have changed.

    Args:
        first: the parameters of `start_from`, if they are there.
        host_state: of the newest checkpoint, which knows what the run began from; None: it has not begun.
    """
    if config.data.index is None:
        return None
    if config.start_from is None:
        return loaded
    if first is not None and may_have_begun_from(host_state, first):
        return loaded.with_params(first)
    warn(f"{config.start_from}: not as it was when this run began; results lack the recall before training")
    return None
