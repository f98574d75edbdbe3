"""The opponent of the search: one matrix product and topk in torch, in bfloat16, over as many vectors."""

from pathlib import Path

import torch

from benchmarks.accelerator.part import Record, reason, run, seconds, spread
from benchmarks.accelerator.scale import Scale

K = 10


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Milliseconds of a search for each number of queries. Scores are bfloat16: less exact than the other side's."""
    del weights
    there = torch.cuda.is_available()
    where, passages = "cuda" if there else "cpu", scale.passages
    if there:
        passages = min(passages, int(0.72 * torch.cuda.get_device_properties(0).total_memory) // (2 * scale.width))
    vectors = torch.empty(passages, scale.width, dtype=torch.bfloat16, device=where).normal_()
    told = []
    for queries in scale.queries:
        asked = torch.randn(queries, scale.width, device=where).to(torch.bfloat16)

        def search(asked: torch.Tensor = asked) -> None:
            torch.topk(asked @ vectors.T, K, dim=1)
            if there:
                torch.cuda.synchronize()

        try:
            search()
            told.append({"queries": queries} | spread(seconds(search, scale.rounds)))
        except RuntimeError as error:
            told.append({"queries": queries, "error": reason(error)})
        record(passages=passages, searches=told)


if __name__ == "__main__":
    run(main)
