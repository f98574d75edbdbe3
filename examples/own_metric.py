"""A metric of your own: how far a numeric answer is from the gold one, over a trained model and a question file.

python -m examples.own_metric --workdir runs/demo --questions runs/demo/data/test.jsonl
"""

import argparse
import math
import re
from pathlib import Path

from rag_jax import RAG
from rag_jax.data.questions import read_questions
from rag_jax.evaluation.metrics.answers import exact_match

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def log_ratio(prediction: str, answer: str) -> float | None:
    """|log10(prediction / answer)|: 0 is exact, 1 is off by a factor of ten; None where either is no number."""
    numbers = [NUMBER.search(text.replace(",", "")) for text in (prediction, answer)]
    if None in numbers:
        return None
    p, a = (float(number[0]) for number in numbers if number)
    return abs(math.log10(p / a)) if p > 0 and a > 0 else None


def main(workdir: Path, questions: Path, count: int = 200) -> dict[str, float]:
    rag = RAG.from_workdir(workdir)
    asked = read_questions(questions)[:count]
    answers = rag.answer([question.question for question in asked])
    pairs = [(answer.text, question.answers) for answer, question in zip(answers, asked, strict=True)]
    ratios = [ratio for text, gold in pairs if (ratio := log_ratio(text, gold[0])) is not None]
    results = {
        "exact_match": sum(exact_match(text, gold) for text, gold in pairs) / len(pairs),
        "numeric": len(ratios) / len(pairs),
        "mean_log_ratio": sum(ratios) / len(ratios) if ratios else math.nan,
    }
    print(results)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    options = parser.parse_args()
    main(options.workdir, options.questions)
