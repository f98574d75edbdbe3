"""The opponent: llama.cpp, through the low-level functions of llama-cpp-python. A process that answers requests.

It needs numpy and llama_cpp alone, so that it may run in an interpreter of its own. The prompts of a case are sequences
of one batch, as llama.cpp's server has them.
"""

import sys
from pathlib import Path
from typing import Any

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np

from benchmarks.conversation import serve, threads

FILE_TYPES = {"float32": llama_cpp.LLAMA_FTYPE_ALL_F32, "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}
CACHES = {"float32": llama_cpp.GGML_TYPE_F32, "q8_0": llama_cpp.GGML_TYPE_F16}  # keys and values; F16 is its default
SEQUENCES, ROOM = 4, 1_024  # sequences at most, and tokens of all their prompts


def main(folder: Path, source: Path, dtype: str) -> None:
    """Convert the weights, load them, then answer what is asked."""
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    model = loaded(converted(source, folder / f"{dtype}.gguf", FILE_TYPES[dtype]))
    context = opened(model, CACHES[dtype])
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def answer(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        lengths = inputs["prompt_lengths"]
        prompts = [row[:length] for row, length in zip(inputs["prompts"], lengths, strict=True)]
        return {"tokens": generated(context, vocabulary, prompts, request["case"]["target"], int(inputs["end"]))}

    serve(answer)


def converted(source: Path, target: Path, file_type: int) -> Path:
    """The model in another precision, dequantised first."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = file_type, True, threads()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise RuntimeError(f"{source} cannot be converted")
    return target


def loaded(path: Path) -> Any:
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path} cannot be loaded")
    return model


def opened(model: Any, cache_type: int) -> Any:
    """A context in which all sequences share one cache."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 2 * ROOM, ROOM, ROOM, SEQUENCES
    params.n_threads = params.n_threads_batch = threads()
    params.type_k = params.type_v = cache_type
    return llama_cpp.llama_init_from_model(model, params)


def generated(context: Any, vocabulary: int, prompts: list[np.ndarray], target: int, end: int) -> list[list[int]]:
    """The greedy continuations, of which none ends before its last token."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    answers: list[list[int]] = [[] for _ in prompts]
    batch = llama_cpp.llama_batch_init(ROOM, 0, 1)
    pieces, starts = [each.tolist() for each in prompts], [0] * len(prompts)
    for step in range(target):
        last = fill(batch, pieces, starts)
        if llama_cpp.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        starts = [start + len(piece) for start, piece in zip(starts, pieces, strict=True)]
        for answer, index in zip(answers, last, strict=True):
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, index), (vocabulary,))
            if step < target - 1:
                logits[end] = -np.inf
            answer.append(int(logits.argmax()))
        pieces = [answer[-1:] for answer in answers]
    llama_cpp.llama_batch_free(batch)
    return answers


def fill(batch: Any, pieces: list[list[int]], starts: list[int]) -> list[int]:
    """Put the next tokens of each sequence into a batch; the index of each sequence's last one, whose logits count."""
    index, last = 0, []
    for sequence, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
        for offset, token in enumerate(piece):
            batch.token[index], batch.pos[index] = token, start + offset
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = offset == len(piece) - 1
            index += 1
        last.append(index - 1)
    batch.n_tokens = index
    return last


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
