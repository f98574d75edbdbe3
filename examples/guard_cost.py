"""What a guard costs: the time of guarded answers beside that of the same answers without a guard.

python -m examples.guard_cost

One model answers and moderates. All questions are one call, the programs are compiled before.
"""

import time
from collections.abc import Callable
from statistics import median

from examples.injections import FILE, GENERATOR, ORDERS, TOWER, passages
from rag_jax import RAG
from rag_jax.data.jsonl import read_jsonl
from rag_jax.moderation import passage_filters
from rag_jax.moderation.guard import Guard, GuardedRAG
from rag_jax.moderation.moderator import Moderator


def milliseconds(ask: Callable[[], object], rounds: int) -> float:
    """The median of some rounds after the first, which compiles."""
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        ask()
        taken.append(1e3 * (time.perf_counter() - start))
    return median(taken[1:])


def main(tower: str = TOWER, generator: str = GENERATOR, first: int | None = None, rounds: int = 3) -> dict[str, float]:
    rows = [row for _, row in read_jsonl(FILE)][:first]
    bare = RAG.from_networks(tower, generator, num_docs=1).with_long_questions("cut")
    rag = bare.with_passages([each for row in rows for each in passages(row)])
    judge = Moderator.self_reflecting(rag, ORDERS)  # it reads a passage too; one without an index is faster
    alone = Moderator.self_reflecting(bare, ORDERS)
    asked = [row["question"] for row in rows]

    def guarded(guard: Guard) -> Callable[[], object]:
        model = GuardedRAG(rag, guard)
        return lambda: model.answer(asked, max_length=24)

    found = {
        "no guard": milliseconds(lambda: rag.answer(asked, max_length=24), rounds),
        "a list of passages": milliseconds(
            guarded(Guard(allow=passage_filters.denied(passage_filters.listed(ids=[rows[0]["id"]])))), rounds
        ),
        "questions": milliseconds(guarded(Guard(question=alone)), rounds),
        "questions, by a moderator with retrieval": milliseconds(guarded(Guard(question=judge)), rounds),
        "passages, judged before": milliseconds(guarded(Guard(passage=alone)), rounds),
        "answers": milliseconds(guarded(Guard(answer=alone)), rounds),
    }
    for name, taken in found.items():
        print(f"{name:42} {taken / len(rows):8.1f} ms a question, {taken / found['no guard']:.2f} times")
    return found


if __name__ == "__main__":
    main()
