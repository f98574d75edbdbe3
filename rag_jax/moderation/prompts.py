"""The prompt of self-reflection: a model is asked which category a text falls into, and answers with its name."""

from typing import Literal

from rag_jax.moderation.categories import Categories

Role = Literal["question", "answer", "passage"]
WHAT = {
    "question": "a question to an assistant",
    "answer": "the answer of an assistant",
    "passage": "a passage of a document",
}


def system_prompt(categories: Categories) -> str:
    """The instruction: the categories with their descriptions, and to answer with a name only."""
    described = [f"- {each.name}: {each.description or each.name}" for each in categories.moderated]
    return "\n".join(
        [
            "You moderate texts. Classify the text into one of these categories, and answer with its name only.",
            *described,
            f"- {categories.acceptable}: everything else",
        ]
    )


def question_template(role: Role) -> str:
    """The template of the text; its role is said here, where another one compiles nothing again."""
    return f"\n\nText, {WHAT[role]}: {{question}}\n\nCategory:"
