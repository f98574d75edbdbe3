"""`rag-jax benchmark`: what is in the repository's folder benchmarks/."""

import importlib
from collections.abc import Sequence

from rag_jax.errors import InputError

BENCHMARKS = {
    "decode": "decoding, beside transformers and CTranslate2",
    "encode": "encoding of passages, beside transformers and CTranslate2",
    "smollm2": "a decoder-only generator with real weights, beside transformers and llama.cpp",
    "train": "training steps, beside transformers",
    "retriever": "contrastive training steps, beside torch, and the memory of GradCache",
    "search": "exact search, beside FAISS",
    "retrieval": "recall and time of each engine of a knowledge store",
    "store": "building, opening and searching a knowledge store of any size",
}
USAGE = "\n".join(
    (
        "usage: rag-jax benchmark NAME [OPTIONS]",
        "",
        *(f"  {name:<12}{what}" for name, what in BENCHMARKS.items()),
        "",
        "rag-jax benchmark NAME --help lists the options. Benchmarks run in a checkout set up by `make test`.",
    )
)


def benchmark(arguments: Sequence[str]) -> None:
    """`rag-jax benchmark`."""
    name, *rest = arguments or [""]
    if name in ("-h", "--help"):
        print(USAGE)
        return
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; the benchmarks are {', '.join(BENCHMARKS)}")
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing; benchmarks run in a checkout set up by `make test`") from None
    module.main(rest)
