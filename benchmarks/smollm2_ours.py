"""SmolLM2 in this library, as a process that answers requests: questions in, answers out, by the facade."""

import sys
from pathlib import Path

import numpy as np

from benchmarks import smollm2_model
from benchmarks.conversation import serve
from benchmarks.ours import matrix_product
from benchmarks.smollm2_cases import Case
from rag_jax.config.generation import GenerationConfig


def main(folder: Path, matmul_precision: str) -> None:
    """Load the model, then answer what is asked."""
    rag = smollm2_model.load(folder, matmul_precision)

    def answer(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        case = Case(**request["case"])
        # No answer ends early.
        config = GenerationConfig(num_beams=case.beams, min_length=case.target, max_length=case.target)
        found = rag.answer(inputs["questions"].tolist(), config, rows=inputs["rows"])
        return {"answers": [each.text for each in found], "log_probs": [each.log_prob for each in found]}

    serve(answer, matrix_product)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
