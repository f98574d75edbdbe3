"""transformers' golden values, for whoever has the weights and the index of its integration tests.

    RAG_JAX_GOLD_INDEX=FOLDER pytest tests/test_gold.py

The numbers are those of tests/models/rag/test_modeling_rag.py there, to which its own tests agree within 1e-3. That the
body below computes them is shown on small random checkpoints, with values that transformers computes.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE

import pretrained
import retrieved
from pretrained import QUESTIONS
from rag_jax.core import retrieval
from rag_jax.pipeline import programs
from rag_jax.pipeline.question_batches import target_batches
from rag_jax.rag import RAG
from rag_jax.types import host
from retrieved import Theirs
from suites import first

QUESTION, ANSWER, K = "who sings does he love me with reba", "Linda Davis", 5
NETWORKS = ("facebook/dpr-question_encoder-single-nq-base", "facebook/bart-large-cnn")
DUMMY = 'load_dataset("facebook/wiki_dpr", with_index=False, dummy=True, split="train").save_to_disk(FOLDER)'
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Gold(NamedTuple):
    """What transformers computes for the question."""

    source: tuple[str, ...]  # a RAG checkpoint; or a question tower and a generator
    model: str
    scores: tuple[float, ...]
    loss: float


BEGINNING = (75.0286, 74.4998, 74.0804, 74.0306, 73.9504)
GOLD = [
    Gold(NETWORKS, "sequence", BEGINNING, 36.7368),
    Gold(NETWORKS, "token", BEGINNING, 36.3557),
    Gold(("facebook/rag-token-nq",), "token", (62.9402, 62.7107, 62.2382, 62.1194, 61.8578), 32.521812),
]


def opened(source: tuple[str, ...], index: Path, model: str) -> RAG:
    if len(source) == 1:
        return RAG.from_pretrained(source[0], index, model=model)
    return RAG.from_networks(*source, index, model=model, num_docs=K)


def computed(rag: RAG, question: str, answer: str, k: int) -> tuple[np.ndarray, float]:
    """The scores of the K best passages, and the loss of `<s>answer</s>`: as there, no space before the answer."""
    words, parts = rag.components.generator_tokenizer, rag.components
    target = [*words.tokenizer.encode(answer, add_special_tokens=False).ids, words.eos]
    ((_, batch),) = target_batches(parts, [question], ["-"], 1)
    batch = batch._replace(
        decoder_inputs=host(np.asarray([[words.bos, *target[:-1]]], np.int32)),
        targets=host(np.asarray([target], np.int32)),
        target_mask=host(np.ones((1, len(target)), bool)),
    )

    @jax.jit
    def scores(params, knowledge, question):
        queries = parts.networks.tower(params.question_tower, question)
        return retrieval.gather(queries, knowledge, retrieval.nearest(queries, knowledge, k).rows)[0].scores

    log_likelihood = programs.scoring(parts.networks, parts.config.model, k, parts.layout)
    found = np.asarray(scores(rag.params, rag.knowledge, batch.question))[0]
    return found, -float(np.asarray(log_likelihood(rag.params, rag.knowledge, batch))[0])


def assert_golden(gold: Gold, index: Path, question: str, answer: str, tolerance: float) -> None:
    rag = opened(gold.source, index, gold.model)
    scores, loss = computed(rag, question, answer, len(gold.scores))
    np.testing.assert_allclose(scores, gold.scores, rtol=0, atol=tolerance)
    assert loss == pytest.approx(gold.loss, abs=tolerance)


def missing(source: tuple[str, ...], index: str) -> str:
    """What is not here, where it was looked for, and how to get it; nothing where all is."""
    absent = [name for name in source if not is_cached(name)]
    told = [f"not in {HF_HUB_CACHE}: {', '.join(absent)}; run: hf download NAME"] if absent else []
    if not index or not Path(index).is_dir():
        told.append(f"RAG_JAX_GOLD_INDEX is {index!r}, no folder; with datasets below 4 run: {DUMMY}")
    return "; ".join(told)


def is_cached(name: str) -> bool:
    files = [try_to_load_from_cache(name, file) for file in ("config.json", *WEIGHTS)]
    return isinstance(files[0], str) and any(isinstance(file, str) for file in files[1:])


@pytest.mark.parametrize("gold", GOLD, ids=lambda gold: f"{gold.source[-1]}, {gold.model}")
def test_golden_values(gold: Gold, monkeypatch: pytest.MonkeyPatch) -> None:
    index = os.environ.get("RAG_JAX_GOLD_INDEX", "")
    if what := missing(gold.source, index):
        pytest.skip(what)
    assert_golden(gold, Path(index), QUESTION, ANSWER, 1e-3)


@pytest.mark.extended
@pytest.mark.parametrize(("kind", "networks"), first(1, [("token", False), ("sequence", True)]))
def test_the_same_is_computed_as_transformers_does(tmp_path: Path, kind: str, networks: bool) -> None:
    model, index = pretrained.save_rag(tmp_path / "rag", kind, n_docs=3), retrieved.save_index(tmp_path / "index")
    theirs, question, answer = Theirs(tmp_path / "rag", kind, index), QUESTIONS[2].lower(), "Vienna's Danube"
    source = (str(tmp_path / "rag"),)
    if networks:
        source = (str(tmp_path / "question"), str(tmp_path / "bart"))
        model.question_encoder.save_pretrained(source[0])
        theirs.retriever.question_encoder_tokenizer.save_pretrained(source[0])
        model.generator.save_pretrained(source[1])
        theirs.retriever.generator_tokenizer.save_pretrained(source[1])
    labels = theirs.retriever.generator_tokenizer(answer)["input_ids"]
    loss = float(theirs.losses([question], [labels], 3)[0])
    gold = Gold(source, kind, tuple(theirs.found(question, 3).scores.tolist()), loss)
    assert_golden(gold, index, question, answer, 1e-4)


def test_what_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    told = missing(("nobody/nothing",), "")
    assert f"not in {HF_HUB_CACHE}: nobody/nothing; run: hf download" in told
    assert "RAG_JAX_GOLD_INDEX is ''" in told
    assert missing((), str(tmp_path)) == ""
