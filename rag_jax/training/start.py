"""What a run starts from: the networks of its config, or those of the run that `start_from` names."""

from pathlib import Path

from rag_jax.config.files import load_config
from rag_jax.errors import InputError
from rag_jax.index import manifest
from rag_jax.index.store import tower_differences
from rag_jax.pipeline.assembly import index_folder
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.trained import restore_params
from rag_jax.training.workdir import CONFIG
from rag_jax.types import RagParams

MAY_DIFFER = ("max_length", "template", "norm", "cut_to")  # of two indexes by the same tower


def start_params(components: Components, begun: bool) -> RagParams | None:
    """The networks' parameters of the run named by `start_from`, if any. A run that is resumed does not need them.

    Raises `InputError` for a run that was trained on the vectors of another passage tower.
    """
    source = components.config.start_from
    if source is None or (begun and not (source / "checkpoints").is_dir()):
        return None
    params = restore_params(source, components)
    if not begun:
        _check_passage_tower(source, components)
    if params.passage_tower is None:
        params = params._replace(passage_tower=components.initial_params.passage_tower)
    return params


def _check_passage_tower(source: Path, components: Components) -> None:
    """Raise `InputError` where a run's question tower has learnt to search the vectors of another passage tower.

    A run that trained its passage tower brings it along. Nothing is known of a run without an index, or whose index is
    gone.
    """
    encoder, config = components.bi_encoder.passage_encoder, load_config(source / CONFIG)
    folder = index_folder(config, source)
    if encoder is None or config.retriever.train_passages or not (folder / manifest.FILE).exists():
        return
    if any(key not in MAY_DIFFER for key, *_ in tower_differences(manifest.read(folder), encoder)):
        remedy = "give retriever.tower and retriever.passage_tower as that run had them"
        raise InputError(f"{source}: was trained with the vectors of another passage tower; {remedy}")
