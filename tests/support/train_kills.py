"""SIGKILL at random moments of a real run on the demo's data: python tests/support/train_kills.py FOLDER COUNT

Each run is killed once, wherever it is, and started again by the same command. It must end as the run that nobody
killed: the same bytes in metrics.jsonl, bit for bit the same parameters, the same scores. Told as JSON at the end.
"""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import jax
import numpy as np

import launch
from rag_jax.config.config import Compute, Config
from rag_jax.config.files import read_config_file
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.demo.data import write_data
from rag_jax.pipeline.trained import restore_params
from rag_jax.rag import RAG

CUT = 12  # questions of the evaluation


def prepared(folder: Path) -> Config:
    """The demo's RAG-Token run, from its first step, shorter and with a checkpoint every few steps."""
    write_data(folder / "data")
    few = islice(read_jsonl(folder / "data" / "test.jsonl"), CUT)
    write_jsonl(folder / "few.jsonl", [question for _, question in few])
    config = read_config_file(launch.ROOT / "configs" / "cities.py")
    data = folder / "data"
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data,
            passages=data / "passages.jsonl",
            train=data / "train.jsonl",
            evaluation=folder / "few.jsonl",
            index=folder / "index",
        ),
        generator=dataclasses.replace(config.generator, tokenizer=data / "tokenizer.json", dropout=0.1),
        compute=Compute(cache=folder / "programs"),
        start_from=None,
        closed_book=None,
        steps=14,
        batch_size=16,
        log_every=3,
        save_every=4,
        eval_every=7,
    )


def started(config: Path, workdir: Path) -> subprocess.Popen[str]:
    return launch.start(config, "--workdir", workdir, optimised=True)


def ending(workdir: Path) -> tuple[bytes, dict]:
    results = json.loads((workdir / "results.json").read_text())
    del results["train_seconds"]
    return (workdir / "metrics.jsonl").read_bytes(), results


def steps(workdir: Path) -> int:
    """The newest checkpoint that was there when the run was killed."""
    folders = (workdir / "checkpoints").glob("*[0-9]")
    return max((int(each.name) for each in folders if each.name.isdigit()), default=0)


def main(folder: Path, count: int) -> None:
    config = launch.write(prepared(folder), folder)
    chance, seen, same = random.Random(0), Counter(), 0
    launch.ended(started(config, folder / "whole"))  # builds the index, and compiles
    shutil.rmtree(folder / "whole")
    began = time.perf_counter()
    launch.ended(started(config, folder / "whole"))
    longest, whole = time.perf_counter() - began, ending(folder / "whole")
    rag = RAG.from_workdir(folder / "whole")
    while seen.total() < count:
        workdir = folder / "trial"
        shutil.rmtree(workdir, ignore_errors=True)
        process = started(config, workdir)
        time.sleep(chance.uniform(0, longest))
        process.kill()
        if process.wait() == 0:
            continue  # it had ended before
        seen[steps(workdir)] += 1
        launch.ended(started(config, workdir))
        assert ending(workdir) == whole, f"another ending in {workdir}"
        jax.tree.map(np.testing.assert_array_equal, restore_params(workdir, rag.components), rag.params)
        same += 1
        print(f"{same}/{count}, most so far: {dict(seen)}", file=sys.stderr)
    told = {"seconds": longest, "killed": seen.total(), "same": same, "newest checkpoint": dict(sorted(seen.items()))}
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]))
