"""What a contrastive run starts from: the towers of its checkpoints, or those of the run that `start_from` names."""

from pathlib import Path

from rag_jax import hub
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import load_config_of
from rag_jax.contrastive.towers import Towers
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError, warn
from rag_jax.pipeline import checkpoint_folders
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.training.provenance import may_have_begun_from
from rag_jax.training.workdir import CONFIG
from rag_jax.types import BiEncoderParams


def start_params(config: ContrastiveConfig, loaded: Towers, begun: bool) -> BiEncoderParams | None:
    """The parameters of the run named by `start_from`, if any. A run that is resumed does not need them."""
    source = config.start_from
    if source is None or (begun and not (source / "checkpoints").is_dir()):
        return None
    load_config_of(ContrastiveConfig, source / CONFIG)
    _check_same_towers(source, loaded)
    found = None
    if (source / "checkpoints").is_dir():  # Checkpoints creates the folder
        checkpoints = Checkpoints(source)
        found = checkpoints.restore_params(loaded.params)
        checkpoints.close()
    if found is None:
        raise InputError(f"{source}: no checkpoint there; train it first, or leave start_from out")
    return found


def _check_same_towers(source: Path, loaded: Towers) -> None:
    """Raise `InputError` where the towers that a run saved read or pool otherwise: its parameters would not fit."""
    for name, ours in loaded.checkpoints(loaded.params).items():
        folder = source / checkpoint_folders.TOWERS / name
        if not (folder / "config.json").exists():
            continue  # not finished, or trained otherwise: the parameters' shapes are compared
        facts = [_reading(each) for each in (hub.load_tower(folder), ours)]
        names = ("tokenizer", "passage template", "question template", "pooling", "vector_norm", "width")
        odd = [name for name, one, other in zip(names, *facts, strict=True) if one != other]
        if odd:
            problem = f"its towers have another {' and another '.join(odd)} than this config's"
            raise InputError(f"{source}: {problem}; give retriever the values of that run")


def _reading(tower: hub.TowerCheckpoint) -> tuple:
    """How a tower reads, and what it makes of its states."""
    known = None if tower.tokenizer is None else fingerprint(tower.tokenizer)
    made = (getattr(tower.config, name, None) for name in ("pooling", "vector_norm", "truncated_width"))
    return known, tower.input_format.passage, tower.input_format.question, *made


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
