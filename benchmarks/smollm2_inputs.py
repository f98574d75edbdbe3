"""The arrays by which every side is told what a case is."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from benchmarks.smollm2_cases import PARAGRAPHS, Case
from benchmarks.smollm2_model import answers, questions
from rag_jax import RAG, likelihood


def arrays(case: Case, rag: RAG) -> dict[str, np.ndarray]:
    """A case's questions as texts, as this library is asked them, and their prompts as tokens, for the others.

    Prompts `[B * K, S]` end with the token that decoding starts from. Greedy decoding reads one passage.
    """
    tokenizer, asked = rag.components.generator_tokenizer, questions()[: case.questions]
    rows = np.arange(case.questions * PARAGRAPHS, dtype=np.int32).reshape(-1, PARAGRAPHS)[:, : case.docs]
    passages = rag.knowledge.passage_tokens
    read = [np.asarray(passages.ids[row, : passages.lengths[row]]) for row in rows.flat]
    ends = [[*prompt, tokenizer.decoder_start] for prompt in tokenizer.prompts(asked) for _ in range(case.docs)]
    prompts = [[*tokenizer.header, *map(int, each), *end] for each, end in zip(read, ends, strict=True)]
    labels = tokenizer.targets(answers()[: case.questions])
    return {
        "questions": np.asarray(asked),
        "answers": np.asarray(answers()[: case.questions]),
        "rows": rows,
        "prompts": _padded(prompts, tokenizer.pad),
        "prompt_lengths": np.asarray([len(each) for each in prompts]),
        "log_prior": _log_prior(rag, asked, rows),
        "labels": _padded(labels, tokenizer.pad),
        "label_lengths": np.asarray([len(each) for each in labels]),
        "end": np.asarray(tokenizer.eos),
    }


def _log_prior(rag: RAG, asked: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """`log p(z|x)` of the passages, which is the question tower's part."""
    found = np.asarray(rag.components.store.subset(rows.reshape(-1)).passage_vectors, np.float32)
    vectors = found.reshape(*rows.shape, -1)
    scores = jnp.asarray(np.einsum("bd,bkd->bk", rag.encode(asked), vectors))
    return np.asarray(likelihood.doc_log_prior(scores))


def _padded(rows: Sequence[Sequence[int]], pad: int) -> np.ndarray:
    longest = max(map(len, rows))
    return np.asarray([[*row, *[pad] * (longest - len(row))] for row in rows], np.int64)
