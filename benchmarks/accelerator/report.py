"""The figures of all parts as JSON and as a page. A part that failed, or has not run, says so in its place."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
FILES = "accelerator.json", "accelerator.md"
MEMORY = "GB, planned here, peak there"


def write(out: Path, told: Figures) -> None:
    """Write accelerator.json and accelerator.md."""
    for name, text in zip(FILES, (json.dumps(told, indent=2) + "\n", page(told)), strict=True):
        side = out / f".{name}.tmp"
        side.write_text(text, encoding="utf-8")
        os.replace(side, out / name)


def page(told: Figures) -> str:
    """All tables, with the machine and the versions above them."""
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    machine = "{device}; {cores} cores, Python {python}".format(**told["machine"])
    head = f"# On an accelerator\n\n{machine}; {versions}.\n"
    parts = told["parts"]
    sections = (
        ("Rightness", rightness(parts.get("rightness", {}))),
        ("Rates", rates(parts.get("roofline", {}))),
        ("Exact search", searches(parts)),
        ("Training", training(parts)),
        ("Decoding", decoding(parts)),
        ("Not whole", failed(parts)),
    )
    return head + "".join(f"\n## {name}\n\n{text}\n" for name, text in sections if text)


def rightness(part: Figures) -> str:
    """Each check's differences."""
    rows = []
    for name, check in part.get("checks", {}).items():
        for key, value in check.items():
            for inner, found in value.items() if isinstance(value, dict) else ((None, value),):
                label = f"{name}: {key}" + (f", {inner}" if inner else "")
                rows.append((label, f"{found:.2g}" if isinstance(found, float) else str(found)))
    return table(("check", "found"), rows)


def rates(part: Figures) -> str:
    """Matrix products and copies."""
    names = {
        "matrix": "matrix product, bfloat16",
        "matrix_float32_default": "float32, default precision",
        "matrix_float32_highest": "float32, full precision",
    }
    rows = [(text, f"{part[key] / 1e12:.0f} TFLOP/s") for key, text in names.items() if key in part]
    rows += [("copy, bytes read and written", f"{part['copy'] / 1e12:.2f} TB/s")] if "copy" in part else []
    return table(("", "rate"), rows)


def searches(parts: Figures) -> str:
    """A line for each search, with torch's beside it."""
    part, copy = parts.get("search", {}), parts.get("roofline", {}).get("copy")
    theirs = {each["queries"]: each for each in parts.get("search_torch", {}).get("searches", ())}
    rows = []
    for each in part.get("searches", ()):
        other = theirs.get(each["queries"], {})
        share = f"{each['bytes/s'] / copy:.2f}" if copy and "bytes/s" in each else ""
        rows.append((each["kind"], each["queries"], milliseconds(each), share, milliseconds(other)))
    heading = ("vectors", "queries", "ms (range)", "of the copy rate", "torch matmul + topk, ms")
    told = (
        f"{part['passages']:,} x {part['width']}, K = 10; planted rows found: {part.get('planted')}, "
        f"in int8 {part.get('planted_int8')}.\n\n"
        if rows
        else ""
    )
    return told + table(heading, rows)


def training(parts: Figures) -> str:
    """Steps of this library and of transformers, and the longest kernels."""
    part, theirs = parts.get("train", {}), parts.get("train_torch", {})
    matrix, work = parts.get("roofline", {}).get("matrix"), part.get("flops")
    rows = [step(each, work, matrix, theirs) for each in part.get("steps", ())]
    if "median" in theirs:
        rows.append(step({"name": "transformers, autocast, SDPA (searches nothing)"} | theirs, work, matrix, {}))
    heading = (
        "step",
        "seconds (range)",
        "questions/s",
        "of the matrix rate",
        "times transformers",
        MEMORY,
        "compile s",
        "first loss",
    )
    kernels = next((each["kernels"] for each in part.get("steps", ()) if each.get("kernels")), [])
    return table(heading, rows) + longest(kernels)


def step(each: Figures, work: float | None, matrix: float | None, theirs: Figures) -> Sequence[Any]:
    """A line of the table of training."""
    if "median" not in each:
        return (each["name"], each.get("error", "not measured"), *[""] * 6)
    share = f"{work / each['median'] / matrix:.2f}" if work and matrix else ""
    faster = f"{theirs['median'] / each['median']:.2f}" if "median" in theirs else ""
    compiled = f"{each['compile']:.0f}" if "compile" in each else ""
    peak = f"{each['peak'] / 1e9:.1f}" if each.get("peak") else ""
    seconds = f"{each['median']:.4f} ({each['min']:.4f}-{each['max']:.4f})"
    return (
        each["name"],
        seconds,
        f"{each['questions/s']:.1f}",
        share,
        faster,
        peak,
        compiled,
        f"{each['losses'][0]:.4f}",
    )


def decoding(parts: Figures) -> str:
    """Decoders of this library and of transformers, and the longest kernels."""
    part, copy = parts.get("decode", {}), parts.get("roofline", {}).get("copy")
    theirs = parts.get("decode_torch", {}).get("decoders", ())
    rows = []
    for each in part.get("decoders", ()):
        kind = each["name"].partition(",")[0]
        others = [other["median"] for other in theirs if other["name"].partition(",")[0] == kind and "median" in other]
        same = next((shared(each, other) for other in theirs if other["name"] == kind and other.get("answers")), "")
        faster = f"{min(others) / each['median']:.1f}" if others and "median" in each else ""
        rows.append((*decoder(each), faster, of_copy_rate(each, part, copy), same if "answers" in each else ""))
    rows += [(*decoder(each | {"name": f"transformers, {each['name']}{cold(each)}"}), "", "", "") for each in theirs]
    heading = (
        *("decoder", "ms (range)", "questions/s", MEMORY, "compile s", "times transformers"),
        *("of the copy rate", "same answers"),
    )
    kernels = next((each["kernels"] for each in part.get("decoders", ()) if each.get("kernels")), [])
    return table(heading, rows) + longest(kernels)


def shared(each: Figures, other: Figures) -> str:
    """How many answers of a decoder are those of the opponent, token for token."""
    pairs = list(zip(each.get("answers", ()), other["answers"], strict=False))
    return f"{sum(a == b for a, b in pairs)} of {len(pairs)}"


def cold(each: Figures) -> str:
    """A remark on what was timed once, without a call before."""
    return " (one cold call)" if each.get("cold") else ""


def decoder(each: Figures) -> Sequence[str]:
    """The left part of a line of the table of decoding."""
    if "median" not in each:
        return each["name"], each.get("error", "not measured"), "", "", ""
    compiled = f"{each['compile']:.0f}" if "compile" in each else ""
    peak = f"{each['peak'] / 1e9:.1f}" if each.get("peak") else ""
    return each["name"], milliseconds(each), f"{each['questions/s']:.1f}", peak, compiled


def of_copy_rate(each: Figures, part: Figures, copy: float | None) -> str:
    """The bytes that RAG-Token's steps must move, per second of the time that is not reading."""
    if each["name"] != "token" or "median" not in each or not copy or "encode" not in part:
        return ""
    writing = each["median"] - part["encode"]["median"]
    return f"{(part['case']['target'] - 1) * part['step_bytes'] / writing / copy:.2f}"


def longest(kernels: Iterable[Figures]) -> str:
    """The kernels that take longest."""
    rows = [
        (f"`{each['kernel'][:60]}`", f"{each['share']:.2f}", f"{each['ms']:.2f}", each["launches"]) for each in kernels
    ]
    return "\n\n" + table(("kernel", "share", "ms", "launches"), rows) if rows else ""


def failed(parts: Figures) -> str:
    """What was cut short or failed, and why."""
    return table(("part", "why"), [(name, part["error"]) for name, part in parts.items() if "error" in part])


def milliseconds(each: Figures) -> str:
    """Median and range."""
    if "median" not in each:
        return each.get("error", "not measured")
    return f"{1e3 * each['median']:.2f} ({1e3 * each['min']:.2f}-{1e3 * each['max']:.2f})"


def table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; nothing without rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}", *lines]) if lines else ""
