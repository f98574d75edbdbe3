"""The opponent: CTranslate2, as a process of its own that answers requests on its standard input.

It searches every passage for W answers, and scores answers under other passages; what RAG-Sequence makes of that is
`benchmarks.union`. RAG-Token mixes the passages within every step, which no function of it does.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from safetensors.numpy import load_file

from benchmarks import union
from benchmarks.cases import END, GENERATOR, TOWER, Case
from benchmarks.conversation import serve, threads
from benchmarks.ct2_models import convert_bart, convert_bert, states
from benchmarks.union import Answer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SCORED_AT_ONCE = 32  # pairs of a passage and an answer, whose logits take memory


def main(folder: Path, dtype: Any) -> None:
    """Convert the weights, then decode what is asked for."""
    tower, reader = load(folder, dtype)

    def decode(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        case = Case(**request["case"])
        scores = np.einsum("bd,bkd->bk", encode(tower, inputs["question"]), inputs["vectors"])
        prior = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        answers = rag_sequence(reader, prior, inputs["passages"], case)
        return {"answers": [list(answer) for answer, _ in answers], "log_probs": [each for _, each in answers]}

    serve(decode)


def load(folder: Path, dtype: Any) -> tuple[ctranslate2.Encoder, ctranslate2.Translator]:
    """The question tower and the generator; matrix products in float32 or int8."""
    prefix = "question_encoder.bert_model."
    stored = {name.removeprefix(prefix): each for name, each in load_file(folder / TOWER / WEIGHTS).items()}
    config = json.loads((folder / TOWER / CONFIG).read_text(encoding="utf-8"))
    places = folder / f"ct2-{dtype}-{TOWER}", folder / f"ct2-{dtype}-{GENERATOR}"
    convert_bert(stored, config["num_attention_heads"], config["layer_norm_eps"], places[0], dtype)
    config = json.loads((folder / GENERATOR / CONFIG).read_text(encoding="utf-8"))
    convert_bart(load_file(folder / GENERATOR / WEIGHTS), config, places[1], dtype)
    how: Any = {"compute_type": dtype, "inter_threads": 1, "intra_threads": threads()}
    return ctranslate2.Encoder(str(places[0]), **how), ctranslate2.Translator(str(places[1]), **how)


def encode(tower: ctranslate2.Encoder, questions: np.ndarray) -> np.ndarray:
    """Questions `[B, Q]` without padding to vectors `[B, D]`: the states of their first token, as DPR takes them."""
    return states(tower, questions.astype(np.int32), np.full(len(questions), questions.shape[1], np.int32))[:, 0]


def rag_sequence(
    reader: ctranslate2.Translator, doc_log_prior: np.ndarray, passages: np.ndarray, case: Case
) -> list[tuple[Answer, float]]:
    """The best answer to each question with its log p(y|x), from inputs `[B*K, S]` without padding."""
    texts = [list(map(str, row)) for row in passages.tolist()]
    proposals = search(reader, texts, case)
    found = [union.union(proposals[b * case.docs : (b + 1) * case.docs]) for b in range(case.questions)]
    if case.decoder == "thorough":
        asked = [(b, *pair) for b, scores in enumerate(found) for pair in union.missing(scores, case.docs)]
        pairs = [(texts[b * case.docs + passage], answer) for b, answer, passage in asked]
        for (b, answer, passage), log_prob in zip(asked, score(reader, pairs), strict=True):
            found[b][answer][passage] = log_prob
    return [union.best(prior, scores) for prior, scores in zip(doc_log_prior, found, strict=True)]


def search(reader: ctranslate2.Translator, texts: list[list[str]], case: Case) -> list[dict[Answer, float]]:
    """W answers from each passage, the end token included, with log p(y|x,z); they compete by it over their length.

    The search stops when W answers have ended. This library's goes on as long as a better one might come.
    """
    told = reader.translate_batch(
        texts,
        beam_size=case.beams,
        num_hypotheses=case.beams,
        length_penalty=1,
        min_decoding_length=0,
        max_decoding_length=case.target,
        return_end_token=True,
        return_scores=True,
    )
    answers = [[tuple(map(int, tokens)) for tokens in each.hypotheses] for each in told]
    return [
        {answer: score * len(answer) for answer, score in zip(some, each.scores, strict=True)}
        for some, each in zip(answers, told, strict=True)
    ]


def score(reader: ctranslate2.Translator, pairs: Sequence[tuple[list[str], Answer]]) -> list[float]:
    """log p(y|x,z) of answers; each reads its passage anew."""
    targets = [[str(token) for token in answer if token != END] for _, answer in pairs]
    told = reader.score_batch([text for text, _ in pairs], targets, max_batch_size=SCORED_AT_ONCE)
    # The end token is always scored; an answer that was cut off before it has none.
    return [sum(each.log_probs[: len(answer)]) for each, (_, answer) in zip(told, pairs, strict=True)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
