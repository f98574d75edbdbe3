"""The paper's training runs (Lewis et al. 2020): one function, and one config per task and model beside this file.

    rag-jax train paper/nq_token --workdir runs/nq_token [--dry-run]

From the paper: DPR encoders (Karpukhin et al. 2020) and BART-large, a frozen passage tower and index, K = 5 or 10,
mixed precision on 8 devices of 32 GB, and the 21,015,324 passages of 100 words of Wikipedia, December 2018. From the
reference implementation's script: AdamW at 3e-5 with 500 warm-up steps and linear decay, weight decay 0.001,
gradients clipped to 0.1, 8 questions on each of 8 devices, label smoothing and dropout 0.1, at most 128 tokens per
question, 25 per answer and 300 per generator input. Neither states the number of steps. These configs train ten
times as many pairs as there are questions; the warm-up is a tenth of the steps if that is below 500.

The mesh is for 8 devices of 32 GB with bfloat16, which V100s of that size lack. On one device of 80 GB, add
--mesh.fsdp 1 --compute.accumulate 8.

Data files:

- data/wikipedia       the index of DPR's passages, https://dl.fbaipublicfiles.com/dpr/wikipedia_split/psgs_w100.tsv.gz,
  built once: rag-jax index psgs_w100.tsv.gz --tower facebook/dpr-ctx_encoder-single-nq-base --dtype bfloat16
  --generator facebook/bart-large --out data/wikipedia. Training reads the passages from it, never from the tsv, all of
  which it would compare with the index in memory
- data/TASK/train.jsonl, dev.jsonl    one JSON object per line: {"id": …, "question": …, "answers": […]}

None of these configs has been measured yet. Each compiles.
"""

from pathlib import Path
from typing import Literal

from rag_jax.config.config import Compute, Config, Data, Generator, Mesh, Optimizer, Retriever
from rag_jax.config.generation import GenerationConfig

DATA = Path("data")
BATCH_SIZE, EPOCHS = 64, 10
BEAMS = {  # for tasks whose answers are sentences
    "token": GenerationConfig(num_beams=4),
    "sequence": GenerationConfig(num_beams=4, method="fast"),
}


def recipe(
    task: str,
    model: Literal["token", "sequence"],
    questions: int,
    *,
    num_docs: int = 5,
    max_target: int = 25,
    answers: Literal["first", "all"] = "first",
    decoding: GenerationConfig | None = None,
    start_from: str | None = None,
) -> Config:
    """The config of a task with `questions` training questions in `data/TASK`."""
    steps = EPOCHS * questions // BATCH_SIZE
    return Config(
        data=Data(
            train=DATA / task / "train.jsonl",
            evaluation=DATA / task / "dev.jsonl",
            answers=answers,
            index=DATA / "wikipedia",
        ),
        retriever=Retriever(
            tower="facebook/dpr-question_encoder-single-nq-base",
            passage_tower="facebook/dpr-ctx_encoder-single-nq-base",
            num_docs=num_docs,
            precision="bfloat16",  # 32 GB of vectors over the devices
        ),
        generator=Generator(
            checkpoint="facebook/bart-large",
            max_target=max_target,
            lengths=(128, 144, 160, 192),
        ),
        optimizer=Optimizer(warmup=min(500, steps // 10), label_smoothing=0.1),  # the other defaults are the paper's
        decoding=decoding or GenerationConfig(),
        mesh=Mesh(fsdp=8),
        compute=Compute(dtype="bfloat16", remat="dots", scan=True, attention="fused"),
        model=model,
        start_from=None if start_from is None else Path(start_from),
        steps=steps,
        batch_size=BATCH_SIZE,
    )
