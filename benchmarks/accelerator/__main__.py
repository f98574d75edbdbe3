"""Run all parts, in the order of their worth, and write what they found."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.accelerator import READ_WEIGHTS, SHARES, report
from benchmarks.accelerator.scale import SCALES

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")
ENVIRONMENT = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Each part in a process of its own; the report is written anew after each."""
    parser = argparse.ArgumentParser(prog="benchmarks/accelerator.sh", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of all parts together")
    parser.add_argument("--size", choices=tuple(SCALES), default="full")
    parser.add_argument("--parts", default=",".join(SHARES), help="names, with commas between")
    known = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: the part ends too
    unknown = sorted(set(known.parts.split(",")) - set(SHARES))
    if unknown:
        parser.error(f"--parts {','.join(unknown)}: no such part; there are {', '.join(SHARES)}")
    wanted = with_weights({*known.parts.split(",")})
    there = [known.out / name for name in report.FILES if (known.out / name).exists()]
    if there or (known.out.exists() and not known.out.is_dir()):
        parser.error(f"{there[0] if there else known.out}: is there already; choose another folder")
    known.out.mkdir(parents=True, exist_ok=True)
    ends, found = time.monotonic() + 60 * known.minutes, {}
    told = {"machine": machine(), "versions": versions(), "size": known.size, "minutes": known.minutes, "parts": found}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(wanted):
            share = SHARES[name] / sum(SHARES[each] for each in wanted[number:])
            limit = share * (ends - time.monotonic())
            print(f"{name}: at most {limit:.0f} s", flush=True)

            def keep(part: dict[str, Any], name: str = name) -> None:
                found[name] = part
                report.write(known.out, told)

            measure(name, known.size, Path(folder), limit, keep)
    print((known.out / "accelerator.md").read_text(encoding="utf-8"))


def with_weights(parts: set[str]) -> list[str]:
    """The parts in their order, with the one that others read from."""
    return [name for name in SHARES if name in (parts | {"weights"} if parts & READ_WEIGHTS else parts)]


def measure(name: str, size: str, folder: Path, limit: float, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run a part, and keep what it wrote before it ended, or was ended, or this run is: `error` says why not all."""
    if limit <= 0:
        keep({"error": "not run: no time was left; give more --minutes"})
        return
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    command = [sys.executable, "-m", f"benchmarks.accelerator.{name}", size, str(folder), str(out)]
    began, error = time.monotonic(), "the run was ended"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**ENVIRONMENT, **os.environ})
        try:
            code = process.wait(limit)
            error = None if code == 0 else f"ended with {code}: {last_line(log)}"
        except subprocess.TimeoutExpired:
            error = f"cut at its limit of {limit:.0f} s"
        finally:  # a part that is left behind would hold the device's memory
            process.kill()
            process.wait()
            told = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
            told["took"] = time.monotonic() - began
            keep(told if error is None else told | {"error": error, "log": log.read_text(errors="replace")[-4_000:]})


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing said"


def machine() -> dict[str, Any]:
    """The device, as its driver names it, and the host."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        device = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        device = "no NVIDIA device"
    return {"device": device, "cores": os.cpu_count(), "python": sys.version.split()[0]}


def versions() -> dict[str, str]:
    """Of the packages that the figures depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
