"""What Lewis et al. 2020 train, as configs: one function, and a file beside this one for each task and model.

    python train.py configs/paper/nq_token.py --workdir runs/nq_token [--dry-run]

From the paper: the towers of DPR (Karpukhin et al. 2020) and BART-large, the passage tower and its index frozen, K = 5
or 10, mixed precision on 8 devices of 32 GB, the 21 015 324 passages of Wikipedia of December 2018 in 100 words each.
What it leaves out is as in its reference implementation's script: AdamW at 3e-5 with 500 steps of warm-up and linear
decay, weight decay 0.001, gradients clipped to 0.1, 8 questions on each of 8 devices, label smoothing and dropout 0.1,
128 tokens of a question, 25 of an answer, 300 of passage and question. Neither tells the number of steps: ten epochs
here, a tenth of them warm-up where that is less than 500 steps.

The hardware meant is 8 devices of 32 GB. On one of 80 GB: --mesh.fsdp 1 --compute.accumulate 8.

The data's expected place is `data/TASK/`, beside `data/psgs_w100.tsv` and the index `data/wikipedia`:

- data/psgs_w100.tsv   DPR's file, https://dl.fbaipublicfiles.com/dpr/wikipedia_split/psgs_w100.tsv.gz
- data/wikipedia       built once with the command that README.md gives for it, by the passage tower below
- data/TASK/train.jsonl, dev.jsonl    {"id": …, "question": …, "answers": […]} on each line; see docs/formats.md

None of these configs has been measured yet; each compiles (docs/training.md).
"""

from pathlib import Path
from typing import Literal

from rag_jax.config.config import Compute, Config, Data, Generator, Mesh, Optimizer, Retriever
from rag_jax.config.generation import GenerationConfig

DATA = Path("data")
QUESTIONS_A_STEP, EPOCHS = 64, 10
BEAMS = {  # of the tasks whose answers are sentences
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
    """The config of a task with so many training questions, which are expected in `data/TASK`."""
    steps = EPOCHS * questions // QUESTIONS_A_STEP
    return Config(
        data=Data(
            passages=DATA / "psgs_w100.tsv",
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
        optimizer=Optimizer(warmup=min(500, steps // 10), label_smoothing=0.1),  # the rest is the default
        decoding=decoding or GenerationConfig(),
        mesh=Mesh(fsdp=8),
        compute=Compute(dtype="bfloat16", remat="dots", scan=True, attention="fused"),
        model=model,
        start_from=None if start_from is None else Path(start_from),
        steps=steps,
        batch_size=QUESTIONS_A_STEP,
    )
