"""A contrastive run: check the config, start or resume, train, build the index, evaluate, save the towers."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rag_jax import hub
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive import evaluation, negatives, teacher, towers
from rag_jax.contrastive.checks import check, check_widths
from rag_jax.contrastive.examples import make_examples
from rag_jax.contrastive.loop import Run, train
from rag_jax.contrastive.start import start_params, towers_before
from rag_jax.contrastive.towers import Towers
from rag_jax.corpus import read_passages
from rag_jax.corpus.chunking import Cut
from rag_jax.data import files, strict_json
from rag_jax.data.questions import Question, read_questions
from rag_jax.errors import InputError, warn
from rag_jax.evaluation import evaluate
from rag_jax.index import building, manifest
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store, open_store, tower_differences, without_vectors
from rag_jax.models.architecture import changed_fields
from rag_jax.parallel import devices
from rag_jax.pipeline import checkpoint_folders, digests, own_index
from rag_jax.pipeline.assembly import every_twentieth, required_path
from rag_jax.pipeline.checkpoints import finished_params, saved_host_state
from rag_jax.pipeline.gold_passages import check_gold
from rag_jax.pipeline.opened_index import check_corpus
from rag_jax.terminal import Terminal
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.provenance import (
    NEGATIVES,
    NETWORKS,
    PASSAGES,
    QUESTIONS,
    Dependencies,
    check_same,
    start_dependency,
)
from rag_jax.training.run import record_config, tell_encoded
from rag_jax.training.workdir import locked
from rag_jax.types import BiEncoderParams

RESULTS = "results.json"
console = Terminal()


class Finished(NamedTuple):
    """What a finished run leaves, for the terminal."""

    results: dict[str, Any]  # as in results.json
    index_folder: Path
    question_tower: Path


def train_and_evaluate(config: ContrastiveConfig, workdir: Path) -> Finished | None:
    """Train, or resume from the newest checkpoint; then build the index of the trained towers, score and save them.

    Writes WORKDIR/towers, WORKDIR/index and results.json. Returns None in every process but the first. Invalid input is
    reported before anything is written.
    """
    changed = check(config, workdir)
    with locked(workdir) if devices.is_first() else nullcontext():
        changed = check(config, workdir)  # again: another run may have held the lock until now
        checkpoint_folders.check(workdir / checkpoint_folders.TOWERS)
        devices.enable_compilation_cache(config)
        judged = read_judged(config)
        loaded, store = towers.load(config), corpus(config)
        check_widths(config, loaded.question.checkpoint.config.vector_width)
        check_gold(store, judged, "evaluation questions")
        for each in loaded.checkpoints(loaded.params).values():
            hub.check_layout(each)
        host_state, first = saved_host_state(workdir), None
        params = finished_params(workdir, config.steps, loaded.params)
        if params is None or config.data.index is not None:
            first = start_params(config, loaded, begun=host_state is not None)
        before = towers_before(config, loaded, first, host_state)
        if before is not None:
            _index_before(config, before)  # refuses other towers
        if params is None:
            params = _fit(config, workdir, loaded, store, judged, first, changed)
        else:
            check_same(host_state, evaluation_dependencies(loaded, store), config, workdir)
            record_config(config, workdir, changed)
        if not devices.is_first():
            devices.wait_for_all("the results are written")
            return None
        params = loaded.interpolated(params, config.retriever.interpolation)
        folders = checkpoint_folders.write_towers(workdir, loaded.checkpoints(params))
        index = trained_index(config, workdir, loaded, store, params, folders)
        results = measure(config, loaded.with_params(params), index, before, judged)
        results |= {"steps": config.steps, "train_seconds": seconds_trained(workdir)}
        files.write_atomically(workdir / RESULTS, strict_json.dumps(results, indent=2) + "\n")
        devices.wait_for_all("the results are written")
    assert index.folder is not None
    return Finished(results, index.folder, folders[0])


def corpus(config: ContrastiveConfig) -> Store:
    """The passages of the run, without their vectors. Raises `InputError` for a corpus other than the index's."""
    c = config.data
    if c.passages is None and c.index is None:
        raise InputError("data.passages is not given; name a corpus, or an index of it, data.index")
    index = None if c.index is None else open_store(c.index, None, None)
    if c.passages is None:
        assert index is not None
        return index
    passages = list(read_passages(c.passages, c.passage_words))
    if index is not None:
        assert c.index is not None
        check_corpus(passages, index, c.index, c.passages)
    return without_vectors(passages)


def read_judged(config: ContrastiveConfig) -> list[Question]:
    """The evaluation questions. Raises `InputError` where neither gold passages nor answers are known of one."""
    path = required_path(config.data.evaluation, "data.evaluation")
    questions = read_questions(path)
    if not any(question.positive_ids for question in questions) and not all(q.answers for q in questions):
        raise InputError(f"{path}: questions without positive_ids and without answers; a recall needs one of them")
    return questions


def trained_index(
    config: ContrastiveConfig,
    workdir: Path,
    loaded: Towers,
    store: Store,
    params: BiEncoderParams,
    folders: Sequence[Path],
) -> Store:
    """The index of the corpus by the trained passage tower: data.index where its vectors are those, else WORKDIR/index.

    Args:
        folders: where the towers are saved, of questions and of passages, for the index's manifest.
    """
    of_questions, *_, of_passages = (str(folder.absolute()) for folder in (*folders, folders[-1]))
    encoder = loaded.passage_encoder(config, params)
    if config.data.index is not None and (found := _by_this_tower(config.data.index, encoder)) is not None:
        return found
    encoder = dataclasses.replace(_as_saved(encoder, of_passages), source=of_passages)
    if not loaded.shares:
        fingerprint = checkpoint_folders.tower_fingerprint(of_questions)
        encoder = dataclasses.replace(encoder, question_source=of_questions, question_fingerprint=fingerprint)
    if (found := _by_this_tower(workdir / "index", encoder)) is not None:
        return _with_question_tower(_over_same_passages(found, store), encoder)
    passages = list(store.live_passages())
    console.print(f"encoding {len(passages):,} passages by the trained tower")
    progress = every_twentieth(len(passages), tell_encoded)
    own_index.check(workdir / "index")
    # The index of a run of fewer steps may be unfinished there, hence the restart.
    cut = Cut(config.data.passage_words) if store.manifest is None else store.manifest.cut
    return building.build(workdir / "index", passages, encoder, None, progress, cut=cut, restart=True)


def _as_saved(encoder: TextEncoder, folder: str) -> TextEncoder:
    """The encoder with its checkpoint's tokenizer, as later commands read it: saving completes some of GGUF files."""
    tokenizer = hub.load_tower(folder).tokenizer
    assert tokenizer is not None
    return dataclasses.replace(encoder, tokenizer=tokenizer)


def _with_question_tower(index: Store, encoder: TextEncoder) -> Store:
    """The run's index, whose manifest names the question tower as it is now: it may have been trained further."""
    assert index.folder is not None
    assert index.manifest is not None
    if index.manifest.tower.items() >= encoder.origin.items():
        return index
    with manifest.transaction(index.folder) as now:
        named = now.next_version("question tower", tower=now.tower | encoder.origin, build_spec=now.build_spec)
        manifest.commit(index.folder, now, named)
    return open_store(index.folder, None, None)


def _over_same_passages(index: Store, store: Store) -> Store:
    """The index. Raises `InputError` where it holds other passages than the run was trained on."""
    tables = (each.passages.table.filter(pa.array(each.alive)) for each in (index, store))
    if not next(tables).equals(next(tables)):
        problem = "holds other passages than the run was trained on"
        raise InputError(f"{index.folder}: {problem}; move it away, and the same command builds its own")
    return index


def measure(
    config: ContrastiveConfig, trained: Towers, index: Store, before: Towers | None, judged: Sequence[Question]
) -> dict[str, Any]:
    """The recall of the trained towers, of BM25, and of the towers before training where their index is given."""
    depth = evaluate.depth_of(index)
    ranked = {"": evaluation.vector_rows(index, _question_vectors(config, trained, trained.params, judged), depth)}
    stores = {"": index, "_bm25": index}
    ranked["_bm25"] = evaluate.bm25_rows(index, judged)
    if before is not None:
        stores["_before"] = _index_before(config, before)
        vectors = _question_vectors(config, before, before.params, judged)
        ranked["_before"] = evaluation.vector_rows(stores["_before"], vectors, depth)
    found = {
        f"{name}{suffix}": value
        for suffix, rows in ranked.items()
        for name, value in evaluation.scores(stores[suffix], rows, judged).items()
    }
    return found | {"questions": len(judged), "passages": len(index)}


def _index_before(config: ContrastiveConfig, before: Towers) -> Store:
    """The index of the towers before training. Raises `InputError` for one by other towers."""
    assert config.data.index is not None
    return open_store(config.data.index, before.passage_encoder(config, before.params), None)


def _fit(
    config: ContrastiveConfig,
    workdir: Path,
    loaded: Towers,
    store: Store,
    judged: Sequence[Question],
    first: BiEncoderParams | None,
    changed: Sequence[str],
) -> BiEncoderParams:
    """The trained parameters, by training."""
    host_state = saved_host_state(workdir)
    questions = read_questions(required_path(config.data.train, "data.train"))
    rows, mined = hard_negatives(config, questions, store)
    examples = make_examples(config, loaded, store, questions, rows, console)
    scores = teacher_scores(config)
    if scores is not None:
        examples = dataclasses.replace(examples, teacher=teacher.by_row(questions, examples.gold, scores, mined, rows))
    depends = check_same(host_state, dependencies(loaded, store, questions, mined, scores, first), config, workdir)
    record_config(config, workdir, changed)
    run = Run(config, loaded, store, examples, devices.mesh(config))

    def recall(params: BiEncoderParams) -> dict[str, float]:
        params = loaded.interpolated(params, config.retriever.interpolation)
        encoder = loaded.passage_encoder(config, params)
        index = store.with_vectors(encoder.encode_passages(list(store.passages)))
        vectors = _question_vectors(config, loaded, params, judged)
        return evaluation.scores(index, evaluation.vector_rows(index, vectors, evaluate.depth_of(index)), judged)

    return devices.whole(train(run, first or loaded.params, workdir, depends, recall))


def dependencies(
    loaded: Towers,
    store: Store,
    questions: Sequence[Question],
    mined: Mapping[str, Sequence[str]],
    scores: Mapping[str, teacher.Scores] | None,
    first: BiEncoderParams | None,
) -> Dependencies:
    """Digests of everything that training depends on."""

    def question_bytes() -> Iterator[bytes]:
        for each in questions:
            patterns = ["regex"] if each.regex else []
            yield digests.json_bytes([each.id, each.question, each.answers, each.positive_ids, *patterns])

    def negative_bytes() -> Iterator[bytes]:
        yield digests.json_bytes({id: list(own) for id, own in mined.items()})
        if scores is not None:
            yield digests.json_bytes({id: [repr(each.positive), each.negatives] for id, each in scores.items()})

    made_of = {QUESTIONS: digests.digest(question_bytes()), NEGATIVES: digests.digest(negative_bytes())}
    made_of |= evaluation_dependencies(loaded, store)
    return made_of | start_dependency(first)


def evaluation_dependencies(loaded: Towers, store: Store) -> Dependencies:
    """Digests of what the evaluation of a finished run depends on: the corpus, and the towers that it started from."""

    def network_bytes() -> Iterator[bytes]:
        for side in (loaded.question, loaded.passage):
            sizes = side.checkpoint.config
            yield digests.json_bytes([type(sizes).__name__, changed_fields(sizes), list(side.checkpoint.input_format)])
            yield side.tokenizer.to_str().encode()
        yield from digests.parameter_bytes(loaded.params)

    return {
        PASSAGES: digests.digest(digests.text_bytes(store)),
        NETWORKS: digests.digest(network_bytes()),
    }


def hard_negatives(
    config: ContrastiveConfig, questions: Sequence[Question], store: Store
) -> tuple[dict[str, list[int]], dict[str, tuple[str, ...]]]:
    """The hard negatives of the training questions by question id: as rows of the store, and as passage ids."""
    if not config.contrastive.hard_negatives:
        if config.data.negatives is not None:
            warn(f"contrastive.hard_negatives is 0, so that data.negatives, {config.data.negatives}, is not read")
        return {}, {}
    source = config.data.negatives or required_path(config.data.train, "data.train")
    if config.data.negatives is None:
        mined = {question.id: question.negative_ids for question in questions if question.negative_ids}
    else:
        mined = negatives.read_negatives(source, questions)
    negatives.warn_of_missing(source, questions, mined)
    return negatives.resolve(questions, mined, store, source), mined


def teacher_scores(config: ContrastiveConfig) -> dict[str, teacher.Scores] | None:
    """The scores of a teacher by question id, where the loss needs them."""
    path = config.data.negatives
    return teacher.read_teacher(path) if path is not None and config.contrastive.margin_mse else None


def _by_this_tower(folder: Path, encoder: TextEncoder) -> Store | None:
    """The index in a folder, if there is one and this tower encoded its vectors."""
    if not (folder / manifest.FILE).exists():
        return None
    found = open_store(folder, None, None)
    assert found.manifest is not None
    return None if any(tower_differences(found.manifest, encoder)) else found


def _question_vectors(
    config: ContrastiveConfig, loaded: Towers, params: BiEncoderParams, questions: Sequence[Question]
) -> np.ndarray:
    tokens = loaded.question_tokenizer(config)([question.question for question in questions]).ids
    return loaded.question_encoder(config, params).encode(tokens)
