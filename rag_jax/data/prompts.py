"""The prompt of a decoder-only generator in three pieces: header, passage, and question with what follows it.

    header     <|im_start|>system\\nAnswer briefly.<|im_end|>\\n<|im_start|>user\\n
    passage    Lyon\\nLyon is a city in France …
    question   \\n\\nQuestion: where is Lyon?<|im_end|>\\n<|im_start|>assistant\\n

The pieces are tokenised apart and joined inside the compiled program, so that where the whole is too long the passage
is cut. The last token is withheld from the prompt: decoding starts from it, as a decoder with an encoder starts from
its start token.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rag_jax.data import templates
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.errors import InputError

PASSAGE, QUESTION = "<<passage>>", "<<question>>"  # stand-ins while a chat template is rendered


class PromptTexts(NamedTuple):
    """The pieces of a prompt as text; special tokens in them are special."""

    header: str
    question: str  # a template with `{question}`


def plain(question_template: str, system_prompt: str | None, bos: str | None) -> PromptTexts:
    """A prompt without a chat template: the system prompt, a blank line, the passage, the question."""
    header = f"{system_prompt.strip()}\n\n" if system_prompt else ""
    return PromptTexts(f"{bos or ''}{header}", question_template)


def chat(
    chat_template: str, question_template: str, system_prompt: str | None, settings: Mapping[str, Any], source: str
) -> PromptTexts:
    """Passage and question as the user's message of a chat, whose template (Jinja) is rendered once and split.

    Args:
        settings: of the tokenizer; templates read its special tokens.
        source: of the tokenizer, for error messages.

    Raises `InputError` for a template that cannot be rendered or that changes the message.
    """
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    content = PASSAGE + question_template.replace("{question}", QUESTION)
    messages = [{"role": "user", "content": content}]
    if system_prompt:
        messages = [{"role": "system", "content": system_prompt}, *messages]
    special = {key: value for key, value in settings.items() if key.endswith("_token")}
    try:
        (text,), _ = render_jinja_template(
            [messages], chat_template=chat_template, add_generation_prompt=True, **special
        )
    except jinja2.TemplateError as error:
        remedy = "leave out generator.system_prompt" if system_prompt else "set generator.chat to false"
        raise InputError(f"{source}: its chat template cannot be rendered ({error}); {remedy}") from None
    header, passage, rest = text.partition(PASSAGE)
    before, question, end = rest.partition(QUESTION)
    if not passage or not question or QUESTION in end or PASSAGE in rest:
        raise InputError(f"{source}: its chat template changes the user's message; set generator.chat to false")
    return PromptTexts(header, f"{_escape(before)}{{question}}{_escape(end)}")


def with_prompt(
    tokenizer: GeneratorTokenizer, passage_template: str, texts: PromptTexts, source: str, between: str = ""
) -> GeneratorTokenizer:
    """The tokenizer of a decoder-only generator with this prompt; `between` stands between two passages of one.

    Raises `InputError` for a prompt that ends in the question: nothing would mark where an answer begins.
    """
    before, _, after = texts.question.partition("{question}")
    end = _tokens(tokenizer, after.format())
    if not end:
        remedy = r'add text after it, as in "…{question}\nAnswer:"'
        raise InputError(f"{source}: the prompt ends in the question, {texts.question!r}; {remedy}")
    ends_in_space = after[-1:].isspace()
    return tokenizer._replace(
        bos=None,
        decoder_start=end[-1],
        prompt_end=tuple(end[:-1]),
        passage_template=passage_template,
        question_template=f"{before}{{question}}",
        header=tuple(_tokens(tokenizer, texts.header)),
        separator=tuple(_tokens(tokenizer, between)),
        answer_template="{answer}" if ends_in_space else " {answer}",
    )


def _tokens(tokenizer: GeneratorTokenizer, text: str) -> list[int]:
    return templates.encode(tokenizer.tokenizer, [templates.split_at_special_tokens(text, tokenizer.tokenizer)])[0]


def _escape(text: str) -> str:
    """Text as part of a template with fields."""
    return text.replace("{", "{{").replace("}", "}}")
