"""An index and a checkpoint for transformers' RAG and for ours, and what transformers makes of both.

Its model is asked one question at a time: in a batch, RAG-Sequence's `generate` forgets which tokens are padding.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import datasets
import faiss
import jax
import numpy as np
from tokenizers import Tokenizer
from transformers import GenerationConfig, RagRetriever

import oracle
import pretrained
from oracle import torch
from pretrained import KINDS, PASSAGES, QUESTIONS
from rag_jax.core import reading, retrieval
from rag_jax.corpus.passage import Passage
from rag_jax.pipeline.answers import Answer
from rag_jax.pipeline.question_batches import question_batches
from rag_jax.rag import RAG

datasets.disable_progress_bars()

# What generation_config.json says. RAG-Sequence of transformers does not read it, and is told.
TOLD = {"max_length": 12, "min_length": 2, "num_beams": 3, "no_repeat_ngram_size": 2}
START = {"decoder_start_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": 2}
MORE = [Passage("", f"Town {number}", f"Town {number} is on the Danube.") for number in range(8)]
HELD = [passage._replace(id=str(row)) for row, passage in enumerate(PASSAGES + MORE)]
WIDTH = pretrained.sizes()[0].width
VECTORS = np.random.default_rng(3).normal(size=(len(HELD), WIDTH)).astype(np.float32) / 4


def save_index(folder: Path, vectors: np.ndarray = VECTORS, passages: list[Passage] = HELD) -> Path:
    """`passages/` and `index.faiss`, as datasets and faiss write them; ids are the rows."""
    columns = {"title": [p.title for p in passages], "text": [p.text for p in passages], "embeddings": list(vectors)}
    dataset = datasets.Dataset.from_dict(columns)
    dataset.save_to_disk(str(folder / "passages"))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    return folder


def save_rag(folder: Path, kind: str, told: dict | None = None, **settings) -> Path:
    """A RAG checkpoint whose answers are words, end early and late, and depend on what is read."""
    model = pretrained.rag(kind, seed=5, **settings)
    bias, decoder = model.generator.final_logits_bias[0], model.generator.model.decoder
    with torch.no_grad():
        bias[[0, 1]] = -1e4  # transformers takes a PAD in an answer for padding, and may leave out a BOS
        bias[2] += 3
        bias[3:261] -= 8  # bytes
        decoder.embed_positions.weight *= 3
        for layer in decoder.layers:
            layer.encoder_attn.out_proj.weight *= 3
    model.save_pretrained(folder)
    GenerationConfig(**START, **(TOLD if told is None else told)).save_pretrained(folder)
    for place, tokenizer in pretrained.tokenizers().items():
        tokenizer.save_pretrained(folder / place)
    in_order(pretrained.tower_tokenizer()).save(str(folder / "question_encoder_tokenizer" / "tokenizer.json"))
    return folder


def in_order(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer over whole words, in their order: the one that is learnt numbers its tokens by chance."""
    stored = json.loads(tokenizer.to_str())
    texts = [*QUESTIONS, *(f"{passage.title} {passage.text}" for passage in HELD)]
    split = [tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)) for text in texts]
    special = [token["content"] for token in sorted(stored["added_tokens"], key=lambda token: token["id"])]
    words = [*special, *sorted({word for pieces in split for word, _ in pieces})]
    stored["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    return Tokenizer.from_str(json.dumps(stored))


class Found(NamedTuple):
    """What transformers retrieves for a question."""

    rows: list[int]
    scores: np.ndarray  # [K]
    inputs: list[list[int]]  # of the generator, without padding


class Theirs:
    """transformers' RAG from a folder, over an index from a folder."""

    def __init__(self, folder: Path, kind: str, index: Path):
        places = {"passages_path": str(index / "passages"), "index_path": str(index / "index.faiss")}
        self.retriever = RagRetriever.from_pretrained(folder, index_name="custom", **places)
        self.model = KINDS[kind].from_pretrained(folder).eval()
        self.model.set_retriever(self.retriever)
        self.told = {}
        if kind == "sequence":
            self.told = TOLD | START
            self.model.generator.generate = partial(masked, self.model.generator.generate)

    def question(self, question: str) -> torch.Tensor:
        """The question as token ids `[1, Q]`."""
        return self.retriever.question_encoder_tokenizer(question, return_tensors="pt")["input_ids"]

    def found(self, question: str, k: int) -> Found:
        """Retrieve K passages."""
        with torch.no_grad():
            start = torch.zeros(1, 1, dtype=torch.long)
            asked = {"input_ids": self.question(question), "decoder_input_ids": start, "n_docs": k}
            out = self.model(**asked, output_retrieved=True)
        rows = zip(out.context_input_ids, out.context_attention_mask, strict=True)
        inputs = [ids[mask.bool()].tolist() for ids, mask in rows]
        return Found(np.asarray(out.retrieved_doc_ids)[0].tolist(), out.doc_scores[0].numpy(), inputs)

    def losses(self, questions: list[str], labels: list[list[int]], k: int) -> np.ndarray:
        """Of each question, with labels as transformers takes them: the decoder's start, an answer, the end."""
        pairs = zip(questions, labels, strict=True)
        with torch.no_grad():
            outs = [self.model(self.question(q), labels=torch.tensor([each]), n_docs=k) for q, each in pairs]
        return np.asarray([float(out.loss) for out in outs])

    def generated(self, question: str, k: int, **told) -> list[list[int]]:
        """Answers, best first, from the start token to the end token."""
        self.model.config.n_docs = k  # RAG-Sequence judges its proposals with that many, whatever it is told
        asked = {**self.told, **told, "n_docs": k}
        return [until_end(row) for row in self.model.generate(self.question(question), **asked).tolist()]

    def tokens(self, row: list[int]) -> list[str]:
        """An answer's tokens as text, without the start token."""
        return [self.retriever.generator_tokenizer.decode([token]) for token in row[1:]]


def masked(generate: Callable, ids: torch.Tensor, **options) -> torch.Tensor:
    """RAG-Sequence of transformers searches without the mask of its passages: here it has one."""
    return generate(ids, **{**options, "attention_mask": ids.ne(START["pad_token_id"])})


def until_end(row: list[int], end: int = 2) -> list[int]:
    """A row without what follows its end; the start token is one too."""
    return row[: row.index(end, 1) + 1] if end in row[1:] else row


class Both(NamedTuple):
    """One checkpoint over one index, here and there."""

    ours: RAG
    theirs: Theirs
    folder: Path  # with `rag/` and `index/`


def both(folder: Path, kind: str, **settings) -> Both:
    """Save them, and open them."""
    checkpoint, index = save_rag(folder / "rag", kind, **settings), save_index(folder / "index")
    return Both(RAG.from_pretrained(checkpoint, index), Theirs(checkpoint, kind, index), folder)


def texts(answer: Answer) -> list[list[str]]:
    """The tokens of an answer and of its alternatives."""
    return [each.tokens for each in (answer, *answer.alternatives)]


def read(rag: RAG, questions: list[str], k: int) -> list[Found]:
    """What we retrieve for each question, and our generator's inputs."""

    @oracle.jit
    def program(params, knowledge, question, prompt):
        queries = rag.components.networks.tower(params.question_tower, question)
        found, passages = retrieval.gather(queries, knowledge, retrieval.nearest(queries, knowledge, k).rows)
        return found, reading.assemble(passages, prompt, rag.components.layout)

    told: dict[int, Found] = {}
    for batch in question_batches(rag.components, questions, 64):
        found, inputs = jax.device_get(program(rag.params, rag.knowledge, *batch.inputs))
        for row, number in enumerate(batch.first(batch.numbers).tolist()):
            rows = zip(inputs.ids[row], inputs.lengths[row], strict=True)
            told[number] = Found(found.rows[row].tolist(), found.scores[row], [ids[:n].tolist() for ids, n in rows])
    return [told[number] for number in range(len(questions))]
