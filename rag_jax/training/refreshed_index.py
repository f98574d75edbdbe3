"""The store of a finished run's trained passage tower, and both towers as checkpoints."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rag_jax.config.config import Config
from rag_jax.errors import warn
from rag_jax.index import building, manifest
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.parallel import devices
from rag_jax.pipeline import checkpoint_folders, digests, finetuning, own_index, refreshing
from rag_jax.pipeline.assembly import every_twentieth, index_folder, load_networks
from rag_jax.pipeline.checkpoints import saved_host_state
from rag_jax.pipeline.components import BiEncoder, GeneratorBundle
from rag_jax.pipeline.opened_index import open_index
from rag_jax.training.provenance import check_same
from rag_jax.types import RagParams


def write(config: Config, workdir: Path, report: Callable[[int, int], None]) -> bool:
    """Save the towers of the run's last checkpoint, and encode its passages, unless that is done; False without it.

    The first process writes. An interrupted build is resumed by the same call. `report` is called with the number of
    encoded passages and their total.
    """
    networks = load_networks(config, workdir, [])
    params = refreshing.last_params(config, workdir, *networks)
    if params is None:
        return False
    if devices.is_first():
        _complete(config, workdir, networks, params, report)
    devices.wait_for_all("the refreshed index is written")
    return True


def _complete(
    config: Config,
    workdir: Path,
    networks: tuple[BiEncoder, GeneratorBundle],
    params: RagParams,
    report: Callable[[int, int], None],
) -> None:
    """Write the towers and the index, as far as they are missing."""
    trained = refreshing.with_passage_tower(networks[0], params.passage_tower, workdir)
    folder, encoder = workdir / refreshing.FOLDER, trained.required_passage_encoder
    is_current = refreshing.is_current(folder, encoder)
    if not is_current or not (workdir / checkpoint_folders.TOWERS).exists():
        question_tower = finetuning.merged(config, params).question_tower
        checkpoint_folders.write_towers(workdir, refreshing.checkpoints_of(trained, question_tower))
    if not is_current:
        assert encoder.question_source is not None
        asked = checkpoint_folders.tower_fingerprint(encoder.question_source)
        encoder = dataclasses.replace(encoder, question_fingerprint=asked)
        own_index.check(folder)
        old = open_index(index_folder(config, workdir), config, *networks, tokens=False)
        read = {digests.PASSAGES: digests.digest(digests.passage_bytes(old))}
        check_same(saved_host_state(workdir), read, config, workdir)
        passage_tokenizer = PassageTokenizer(networks[1].tokenizer, config.generator.max_passage)
        progress = every_twentieth(len(old), report)
        cut = old.manifest and old.manifest.cut
        # One by the tower of fewer steps may be unfinished there.
        building.build(folder, old.live_passages(), encoder, passage_tokenizer, progress, cut=cut, restart=True)
    elif manifest.read(folder).build_spec is None:
        warn(f"{folder}: changed since the run wrote it; it is searched as it is now")
