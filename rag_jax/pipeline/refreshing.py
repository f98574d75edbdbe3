"""Runs that train the passage tower: their index on the devices while they train, and on disk when they end.

In training the vectors are part of the training state, and of its checkpoints. The store that the run starts from stays
as it is. When the run ends, its passages are encoded by the trained tower into a store of the run's own, which the
trained model searches: WORKDIR/refreshed_index. Both trained towers are checkpoints beside it, WORKDIR/towers. Without
a store by the newest passage tower, the model searches the vectors of the newest checkpoint.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.core import refresh
from rag_jax.core.refresh import RefreshedIndex
from rag_jax.core.training import TrainState
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError
from rag_jax.index import manifest
from rag_jax.index.columns import SegmentedArray
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines.registry import ENGINES
from rag_jax.index.passage_tokenizer import AT_ONCE
from rag_jax.index.placement import CONVERT, padded_rows
from rag_jax.index.store import Store
from rag_jax.pipeline import checkpoint_folders, finetuning
from rag_jax.pipeline.checkpoints import Checkpoints, finished_params
from rag_jax.pipeline.components import BiEncoder, Components, GeneratorBundle
from rag_jax.types import Knowledge, Params, RagParams, host

FOLDER = "refreshed_index"
SIDES = "question", "passage"  # the folders of their checkpoints


def check(config: Config) -> None:
    """Reject contradictory settings."""
    c = config.retriever
    settings = {"refresh_every": c.refresh_every, "refresh_at_once": c.refresh_at_once, "candidates": c.candidates}
    if not c.train_passages:
        name = next((name for name, value in settings.items() if value), None)
        if name is not None:
            problem = f"retriever.{name} is {settings[name]}, but the passage tower is not trained"
            raise InputError(f"{problem}; give retriever.train_passages too, or leave it out")
        return
    asked, num_docs = "retriever.train_passages is set, but", c.prior_docs or c.num_docs
    if config.data.is_closed_book:
        raise InputError(f"{asked} a closed-book run has no passages; leave it out, or give data.passages")
    if finetuning.retriever_mode(config) != "trained":
        raise InputError(f"{asked} the question tower is not trained with them; leave it out, or give the mode trained")
    if not ENGINES[c.engine].in_step:
        raise InputError(f"{asked} the engine {c.engine} does not search inside the step; give the engine device")
    if c.candidates is not None and c.candidates <= num_docs:
        problem = f"retriever.candidates is {c.candidates}, of which the {num_docs} best are kept"
        raise InputError(f"{problem}; give more candidates, or None")
    if c.refresh_at_once and c.refresh_every is None:
        raise InputError("retriever.refresh_at_once is set without retriever.refresh_every; give the number of steps")
    if c.refresh_at_once and c.refresh_every is not None and c.refresh_every >= config.steps and c.candidates is None:
        problem = f"retriever.refresh_every is {c.refresh_every}, and none of the {config.steps} steps refreshes"
        raise InputError(f"{problem} the index at once; give less, or retriever.candidates")
    if c.refresh_every is None and c.candidates is None:
        raise InputError(f"{asked} nothing corrects the index for it; give retriever.refresh_every or candidates")


def for_training(components: Components) -> Components:
    """The components with knowledge on the devices as a training step takes it, which has the vectors in its state."""
    place, store = components.placement, components.store
    no_vectors = host(np.zeros((0, store.width), np.float32))
    tokens = place.tokens(store.passage_tokens, store.passage_lengths)
    to_encode = place.tokens(*tower_tokens(store, components.bi_encoder.required_passage_encoder))
    knowledge = Knowledge(no_vectors, tokens, place.rows(store.alive), to_encode)
    return dataclasses.replace(components, loaded=knowledge)


def searching(components: Components, state: TrainState) -> Components:
    """The components of a run that trains, as they search now: with the vectors of its state, if it holds them."""
    if state.refreshed is None:
        return components
    knowledge = components.knowledge._replace(passage_vectors=state.refreshed.vectors)
    return dataclasses.replace(components, loaded=knowledge)


def first_index(components: Components, passage_tower: Params) -> RefreshedIndex:
    """The index of a run's first step: the vectors of the store, or fresh ones where another tower starts.

    Args:
        components: as `for_training` returned them.
    """
    place, store, how = components.placement, components.store, components.recipe.refresh
    index = RefreshedIndex(place.vectors(store), place.rows(np.zeros(store.size, np.int32)))
    tokens = components.knowledge.tower_tokens
    if how is None or tokens is None or passage_tower is components.bi_encoder.required_passage_encoder.params:
        return index
    encode = jax.jit(partial(refresh.encode_all, how), donate_argnums=2)
    return encode(place.replicate(passage_tower), tokens, index, jnp.int32(0))


def index_shapes(components: Components) -> RefreshedIndex:
    """The shapes of `first_index`."""
    place, store = components.placement, components.store
    rows = padded_rows(store.size, place.shards)
    vectors = jax.eval_shape(CONVERT[place.precision], jax.ShapeDtypeStruct((rows, store.width), jnp.float32))
    return jax.eval_shape(refresh.new_index, vectors)


def tower_tokens(store: Store, encoder: TextEncoder) -> tuple[SegmentedArray, SegmentedArray]:
    """The passages as the passage tower reads them, all rows: ids `[N, P]` and lengths `[N]`, on the host."""
    dtype = np.uint16 if encoder.tokenizer.get_vocab_size() <= 2**16 else np.int32
    ids, lengths = [], []
    for start in range(0, store.size, AT_ONCE):
        rows = encoder.tokens(store.passages[start : start + AT_ONCE]).ids
        tokens = pad(rows, max(map(len, rows)), 0, dtype)
        ids.append(np.asarray(tokens.ids))
        lengths.append(np.asarray(tokens.lengths))
    return SegmentedArray(ids), SegmentedArray(lengths)


def newest_params(
    config: Config, workdir: Path, bi_encoder: BiEncoder, generator: GeneratorBundle
) -> tuple[int, RagParams]:
    """The step and the parameters of the newest checkpoint, as the run trains them.

    Raises `InputError` where there is none, and for checkpoints that are all damaged.
    """
    found = None
    if (workdir / "checkpoints").is_dir():  # Checkpoints creates the folder
        checkpoints = Checkpoints(workdir)
        found = checkpoints.newest_params(_as_trained(config, bi_encoder, generator))
        checkpoints.close()
    if found is None:
        raise InputError(f"{workdir}: no checkpoint there; train first: rag-jax train CONFIG --workdir {workdir}")
    return found


def last_params(config: Config, workdir: Path, bi_encoder: BiEncoder, generator: GeneratorBundle) -> RagParams | None:
    """The parameters of the run's last step, as it trains them; None where they are missing or damaged."""
    return finished_params(workdir, config.steps, _as_trained(config, bi_encoder, generator))


def _as_trained(config: Config, bi_encoder: BiEncoder, generator: GeneratorBundle) -> RagParams:
    encoder = bi_encoder.required_passage_encoder
    return finetuning.with_adapters(config, RagParams(bi_encoder.params, generator.params, encoder.params))


def with_passage_tower(bi_encoder: BiEncoder, params: Params | None, workdir: Path) -> BiEncoder:
    """The bi-encoder with a trained passage tower, from where a finished run saves it."""
    of_questions, of_passages = (str((workdir / checkpoint_folders.TOWERS / side).absolute()) for side in SIDES)
    encoder = dataclasses.replace(
        bi_encoder.required_passage_encoder, params=params, source=of_passages, question_source=of_questions
    )
    return dataclasses.replace(bi_encoder, passage_encoder=encoder)


def checkpoints_of(bi_encoder: BiEncoder, question_tower: Params) -> dict[str, hub.TowerCheckpoint]:
    """The towers as checkpoints, the question tower with its trained parameters, by the name of their folder.

    Each states both templates, so that either folder alone reads passages or questions as the run did.
    """
    encoder = bi_encoder.required_passage_encoder
    assert encoder.config is not None
    asked = bi_encoder.input_format._replace(passage=encoder.template)
    read, settings = asked._replace(max_length=encoder.max_length), encoder.tokenizer_settings
    question = dataclasses.replace(bi_encoder.question_checkpoint(question_tower), input_format=asked)
    passage = hub.TowerCheckpoint(encoder.config, encoder.params, encoder.tokenizer, "passage", settings, read)
    return dict(zip(SIDES, (question, passage), strict=True))


def check_towers(bi_encoder: BiEncoder) -> None:
    """Raise `InputError` for towers that cannot be saved, before they are trained."""
    for each in checkpoints_of(bi_encoder, bi_encoder.params).values():
        hub.check_layout(each)


def is_current(folder: Path, encoder: TextEncoder) -> bool:
    """Whether there is a store with the vectors of this tower."""
    if not (folder / manifest.FILE).exists():
        return False
    return manifest.read(folder).tower.get("fingerprint") == encoder.fingerprint
