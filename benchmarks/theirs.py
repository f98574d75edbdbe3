"""The opponent: transformers' RAG. A process of its own that answers requests on its standard input."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BartForConditionalGeneration,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.cases import END, GENERATOR, PAD, START, TOWER, Case
from benchmarks.conversation import serve, threads

MODELS = {"token": RagTokenForGeneration, "sequence": RagSequenceForGeneration}
DECODERS = {"token": "token", "thorough": "sequence"}  # there is no fast decoding


def main(folder: Path, dtype: str) -> None:
    """Load the weights, then decode what is asked for."""
    torch.set_num_threads(threads())
    shared = _parts(folder)
    for each in ("question_encoder", "generator"):
        shared[each] = shared[each].to(getattr(torch, dtype))
    models: Any = {decoder: MODELS[model](**shared) for decoder, model in DECODERS.items()}

    def decode(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        case = Case(**request["case"])
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {"answers": generated(models[case.decoder], given, case)}

    serve(decode)


def generated(rag: Any, given: dict[str, torch.Tensor], case: Case) -> list[list[int]]:
    """The best answer to each question, by transformers' own generate, which rescores with its config's K."""
    rag.config.n_docs = case.docs
    with torch.inference_mode():
        queries = rag.question_encoder(given["question"]).pooler_output
        tokens = rag.generate(
            context_input_ids=given["passages"],
            context_attention_mask=torch.ones_like(given["passages"]),
            doc_scores=torch.einsum("bd,bkd->bk", queries.float(), given["vectors"].float()),
            n_docs=case.docs,
            num_beams=case.beams,
            max_length=case.target + 1,
            do_sample=False,
            decoder_start_token_id=START,
            eos_token_id=END,
            pad_token_id=PAD,
            forced_eos_token_id=None,
        )
    return [_until_end(row) for row in tokens[:, 1:].tolist()]


def load(model: str, folder: Path) -> Any:
    """RAG-Token or RAG-Sequence with the weights in a folder, in evaluation mode, on the CPU."""
    return MODELS[model](**_parts(folder))


def _parts(folder: Path) -> dict[str, Any]:
    """The arguments of transformers' RAG."""
    set_verbosity_error()
    disable_progress_bar()
    tower = DPRQuestionEncoder.from_pretrained(folder / TOWER).eval()
    generator = BartForConditionalGeneration.from_pretrained(folder / GENERATOR).eval()
    config = RagConfig(question_encoder=tower.config.to_dict(), generator=generator.config.to_dict())
    return {"config": config, "question_encoder": tower, "generator": generator}


def _until_end(row: list[int]) -> list[int]:
    """An answer up to its end token; shorter ones of a batch are padded behind it."""
    return row[: row.index(END) + 1] if END in row else row


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
