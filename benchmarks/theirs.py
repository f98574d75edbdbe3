"""The opponent: transformers' RAG. A process of its own that answers requests on its standard input."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.cases import Case, Sizes, serve

END, START, PAD = 2, 2, 1  # BART's; decoding starts from the end token


def main(sizes: Sizes, folder: Path) -> None:
    """Make the random weights that both sides use, then decode what is asked for."""
    made = parts(sizes, folder)
    models: Any = {"token": RagTokenForGeneration(**made), "thorough": RagSequenceForGeneration(**made)}

    def decode(request: dict, inputs: dict[str, np.ndarray]) -> list[list[int]]:
        case = Case(**request["case"])
        return generated(models[case.decoder], {name: torch.from_numpy(array) for name, array in inputs.items()}, case)

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


def parts(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """The arguments of transformers' RAG, in evaluation mode; the same weights for the other side in a folder."""
    set_verbosity_error()
    torch.manual_seed(0)
    disable_progress_bar()
    tower, generator = DPRQuestionEncoder(_tower(sizes)), BartForConditionalGeneration(_generator(sizes))
    tower.save_pretrained(folder / "question_encoder")
    generator.save_pretrained(folder / "generator")
    config = RagConfig(question_encoder=tower.config.to_dict(), generator=generator.config.to_dict())
    return {"config": config, "question_encoder": tower.eval(), "generator": generator.eval()}


def _tower(sizes: Sizes) -> DPRConfig:
    return DPRConfig(
        hidden_size=sizes.tower_width,
        num_hidden_layers=sizes.tower_layers,
        num_attention_heads=sizes.tower_width // 64,
        intermediate_size=4 * sizes.tower_width,
    )


def _generator(sizes: Sizes) -> BartConfig:
    halves = {"layers": sizes.layers, "attention_heads": sizes.width // 64, "ffn_dim": 4 * sizes.width}
    both: dict[str, Any] = {
        f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in halves.items()
    }
    return BartConfig(d_model=sizes.width, forced_eos_token_id=None, **both)


def _until_end(row: list[int]) -> list[int]:
    """An answer up to its end token; shorter ones of a batch are padded behind it."""
    return row[: row.index(END) + 1] if END in row else row


if __name__ == "__main__":
    main(Sizes.parse(sys.argv[1]), Path(sys.argv[2]))
