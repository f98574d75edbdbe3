"""Run in a process of its own: every bad input in a forked process, two at a time; a line of JSON for each verdict.

run_cases.py FOLDER [--sample COUNT] [--most COUNT] [--families NAME ...] [--match TEXT]
"""

import argparse
import codecs
import functools
import importlib
import json
import os
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name that is no folder is looked for on this machine only
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # what is compiled runs once
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
warnings.simplefilter("ignore")

from faults import configs, corpora, disks, forks, ground, memory, options, paths, questions, stores  # noqa: E402
from faults.case import Case, Ended, refused  # noqa: E402

SAMPLE = ("corpora", "questions", "configs", "options: plan", "options: index")  # for `make test`
CASES: list[Case] = []
FOLDER = Path()


def main() -> None:
    global FOLDER
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, help="so many of those that need no model")
    parser.add_argument("--most", type=int, help="at most so many of each family, spread over it; none: all")
    parser.add_argument("--families", nargs="*", default=())
    parser.add_argument("--match", default="")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    FOLDER = given.folder.resolve()
    FOLDER.mkdir(exist_ok=True)
    _import_all()
    found = _cases("files" if given.sample else "run")
    chosen = [
        case
        for case in found
        if case.name.startswith(tuple(given.families) if given.families else "") and given.match in case.name
    ]
    CASES.extend(_sample(chosen, given.sample) if given.sample else _spread(chosen, given.most))
    assert len({case.name for case in CASES}) == len(CASES), "a name twice"
    if given.list:
        print("\n".join(case.name for case in CASES))
        return
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        for verdict in pool.map(judged, range(len(CASES))):
            print(json.dumps(verdict), flush=True)


def judged(number: int) -> dict:
    """The verdict on one bad input."""
    case = CASES[number]
    try:
        ended = forks.run(case, ground.lay(FOLDER, case.needs), FOLDER / f"case-{os.getpid()}")
        complaint = refused(case, ended)
    except Exception:
        return {"name": case.name, "argv": case.argv, "complaint": f"harness: {traceback.format_exc()}", "err": ""}
    return {
        "name": case.name,
        "argv": [os.fsencode(word).decode(errors="backslashreplace")[:200] for word in case.argv],
        "complaint": complaint,
        "code": ended.code,
        "seconds": round(ended.seconds, 2),
        "megabytes": round(ended.grown),
        "out": ended.out[-500:],
        "err": ended.err[:700] + ended.err[-800:] if len(ended.err) > 1500 else ended.err,
    }


@functools.cache
def sound(case: Case) -> Ended:
    """How a command ends that nobody has spoilt anything for."""
    return forks.run(case, ground.lay(FOLDER, case.needs), FOLDER / f"sound-{os.getpid()}")


def _cases(part: str) -> Iterator[Case]:
    yield from corpora.cases()
    yield from questions.cases()
    yield from configs.cases()
    yield from options.cases(FOLDER)
    yield from paths.cases(list(zip(options.commands(), options.found(FOLDER), strict=True)))
    if part == "run":
        yield from memory.cases()
        yield from disks.cases(sound)
        yield from stores.cases(ground.lay(FOLDER, "store"), ground.lay(FOLDER, "run"), sound)


def _sample(cases: list[Case], count: int) -> list[Case]:
    """About as many of the families of the sample."""
    chosen = [case for case in cases if case.needs == "files" and case.name.startswith(SAMPLE)]
    return _spread(chosen, -(-count // len({family(case.name) for case in chosen})))


def _spread(cases: list[Case], most: int | None) -> list[Case]:
    """At most so many cases of each family, spread over it."""
    groups = defaultdict(list)
    for case in cases:
        groups[family(case.name)].append(case)
    chosen = []
    for group in groups.values():
        count = len(group) if most is None else min(most, len(group))
        chosen += [group[number * len(group) // count] for number in range(count)]
    return chosen


def family(name: str) -> str:
    """What is counted together: what stands before the first colon of a name."""
    return name.partition(": ")[0]


def _import_all() -> None:
    """Import what commands import, so that forked processes need not."""
    from rag_jax.cli import COMMANDS

    for name in (*(f"rag_jax.commands.{each}" for each in COMMANDS), *MODULES):
        importlib.import_module(name)
    codecs.lookup("utf-8-sig")  # a user without rights may not be able to read Python's own files
    xla_bridge = importlib.import_module("jax._src.xla_bridge")
    assert not xla_bridge._backends, "a module touched the devices, whose threads do not survive a fork"


MODULES = (
    *("rag_jax.training.run", "rag_jax.contrastive.run", "rag_jax.instruction.run", "rag_jax.experiments.registry"),
    *("transformers.models.auto.tokenization_auto", "jinja2", "orbax.checkpoint"),
    *("pyarrow.parquet", "safetensors.numpy", "tyro", "rag_jax.pipeline.convert"),
)

if __name__ == "__main__":
    main()
