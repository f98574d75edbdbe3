"""Run in a process of its own: instruction tuning on one device and on a mesh of eight, as JSON on the last line."""

import json
import os

import xla_flags

os.environ["XLA_FLAGS"] = xla_flags.flags(devices=8)

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

import instruction_runs
from rag_jax.config.config import Compute, Mesh
from rag_jax.data.jsonl import read_jsonl
from rag_jax.hub import load_generator
from rag_jax.instruction.run import train_and_evaluate


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # nearly all of the time is compilation
    folder = Path(sys.argv[1])
    config = instruction_runs.config(folder, steps=3, log_every=1, batch_size=32, length_groups=1)
    eight = dataclasses.replace(config, mesh=Mesh(data=2, fsdp=4), compute=Compute(accumulate=2))
    told: dict = {"devices": len(jax.devices())}
    for name, each in (("one", config), ("eight", eight)):
        results = train_and_evaluate(each, folder / name)
        assert results is not None
        losses = [row["loss"] for _, row in read_jsonl(folder / name / "metrics.jsonl")]
        params = jax.tree.leaves(load_generator(folder / name / "generator").params)
        values = np.concatenate([np.ravel(leaf) for leaf in params])
        told[name] = {"losses": losses, "nll": results["nll"], "parameters": values.tolist()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
