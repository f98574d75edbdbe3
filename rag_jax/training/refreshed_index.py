"""The store of a finished run's trained passage tower."""

from collections.abc import Callable
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from rag_jax.config.config import Config
from rag_jax.index import building
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.parallel import devices
from rag_jax.pipeline import refreshing
from rag_jax.pipeline.assembly import every_twentieth, load_networks, open_index


def write(config: Config, workdir: Path, report: Callable[[int, int], None]) -> bool:
    """Encode the run's passages by the passage tower of its last checkpoint, unless that is done; False without it.

    The first process writes. An interrupted build is resumed by the same call. `report` is called with the number of
    encoded passages and their total.
    """
    networks = load_networks(config, workdir, [])
    trained = refreshing.trained_tower(config, workdir, *networks, config.steps)
    if trained is None:
        return False
    folder, encoder = workdir / refreshing.FOLDER, trained.required_passage_encoder
    if devices.is_first() and not refreshing.is_current(folder, encoder):
        old = open_index(config.data.index or workdir / "index", config, *networks, tokens=False)
        passage_tokenizer = PassageTokenizer(networks[1].tokenizer, config.generator.max_passage)
        progress = every_twentieth(len(old), report)
        building.build(folder, old.live_passages(), encoder, passage_tokenizer, progress)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the refreshed index is written")
    return True
