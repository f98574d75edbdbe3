"""The retriever of DPR (Karpukhin et al. 2020), from which RAG starts, on Natural Questions.

    rag-jax train dpr_nq --data.passages psgs_w100.tsv --data.train biencoder-nq-train.json \\
        --data.evaluation nq-dev.jsonl --workdir runs/dpr_nq

DPR's recipe: two BERT-base towers, 128 questions, one BM25 negative each, 40 epochs. The training file has its hard
negatives. Of a question's gold passages each epoch draws one, where DPR takes the first. DPR measured top-20/100
accuracy 78.4/85.4 on the test questions.

Not yet measured here: it needs the 21 million passages, and an accelerator.
"""

from pathlib import Path

from rag_jax.config.config import Compute
from rag_jax.config.contrastive import AdamW, BiEncoder, Contrast, ContrastiveConfig, Data

QUESTIONS, EPOCHS, BATCH = 58_880, 40, 128  # DPR's training questions with a gold passage

config = ContrastiveConfig(
    data=Data(
        passages=Path("data/psgs_w100.tsv"),
        train=Path("data/biencoder-nq-train.json"),
        evaluation=Path("data/nq-dev.jsonl"),
    ),
    retriever=BiEncoder(
        tower="google-bert/bert-base-uncased",
        trained="both",
        max_question=256,
        max_passage=256,
        passage_template="pair",
    ),
    contrastive=Contrast(hard_negatives=1, temperature=1.0),
    optimizer=AdamW(learning_rate=2e-5, warmup=1_237, clip=2.0),
    compute=Compute(dtype="bfloat16", scan=True, attention="fused"),
    steps=EPOCHS * QUESTIONS // BATCH,
    batch_size=BATCH,
    log_every=100,
    save_every=1_000,
)
