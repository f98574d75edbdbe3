"""The prompt of a generator: what stands before and behind the passage, and around the question.

A decoder-only generator's has three pieces.

    header     <|im_start|>system\\nAnswer briefly.<|im_end|>\\n<|im_start|>user\\n
    passage    Lyon\\nLyon is a city in France …
    question   \\n\\nQuestion: where is Lyon?<|im_end|>\\n<|im_start|>assistant\\n

The pieces are tokenised apart and joined inside the compiled program, so that where the whole is too long the passage
is cut. The last token is withheld from the prompt: decoding starts from it, as a decoder with an encoder starts from
its start token. A question's template may have the passage in it, `question: {question} {passage}`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rag_jax.data import templates
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.errors import InputError

STAND_INS = {"passage": "<<passage>>", "question": "<<question>>"}  # for the fields, while a chat template is rendered


class PromptTexts(NamedTuple):
    """The pieces of a prompt as text; special tokens in them are special."""

    header: str
    question: str  # a template with `{question}`, and `{passage}` where it does not come first
    bos: str | None = None  # before the header, which it begins: the token that the tokenizer adds to a text


def check_templates(passage: str, question: str) -> None:
    """Raise `InputError` for templates that a passage or a question cannot be written with."""
    for name, template, needed, known in (
        ("passage_template", passage, "text", {"text", "title"}),
        ("question_template", question, "question", {"question", "passage"}),
    ):
        fields = templates.fields_of(template)
        if needed not in fields or not known.issuperset(fields) or fields.count("passage") > 1:
            remedy = f"write {{{needed}}} where it stands, and no other fields than {_listed(known)}"
            raise InputError(f"generator.{name} is {template!r}; {remedy}")


def with_templates(tokenizer: GeneratorTokenizer, passage_template: str, question_template: str) -> GeneratorTokenizer:
    """The tokenizer of a generator with an encoder, with these templates."""
    passage, question = _space_of_the_passage(passage_template, question_template)
    if tokenizer.header:  # an earlier prompt has moved it there
        tokenizer = tokenizer._replace(bos=tokenizer.header[0], header=())
    tokenizer = tokenizer._replace(passage_template=passage, question_template=question)
    if "{passage}" not in question or tokenizer.bos is None:
        return tokenizer
    return tokenizer._replace(bos=None, header=(tokenizer.bos,))  # it begins the input, not the passage


def plain(question_template: str, system_prompt: str | None, bos: str | None) -> PromptTexts:
    """A prompt without a chat template: the system prompt, a blank line, the passage, the question."""
    header = f"{system_prompt.strip()}\n\n" if system_prompt else ""
    return PromptTexts(header, question_template, bos)


def chat(
    chat_template: str, question_template: str, system_prompt: str | None, settings: Mapping[str, Any], source: str
) -> PromptTexts:
    """Passage and question as the user's message of a chat, whose template (Jinja) is rendered once and split.

    Args:
        settings: of the tokenizer; templates read its special tokens.
        source: of the tokenizer, for error messages.

    Raises `InputError` for a template that cannot be rendered or that changes the message.
    """
    whole = question_template if "{passage}" in question_template else f"{{passage}}{question_template}"
    content = templates.fill_text(whole, **STAND_INS)
    messages = [{"role": "user", "content": content}]
    if system_prompt:
        messages = [{"role": "system", "content": system_prompt}, *messages]
    remedy = "leave out generator.system_prompt" if system_prompt else "set generator.chat to false"
    text = render_chat(chat_template, messages, settings, source, remedy, answers=True)
    stand_in = re.compile(f"({'|'.join(STAND_INS.values())})")
    header, *pieces = stand_in.split(text)
    begin, *expected = stand_in.split(content)
    if pieces[::2] != expected[::2] or not header.endswith(begin):
        raise InputError(f"{source}: its chat template changes the user's message; set generator.chat to false")
    fields = {found: f"{{{name}}}" for name, found in STAND_INS.items()}
    question = "".join(
        fields.get(piece) or templates.plain_text(piece, f"{source}: its chat template") for piece in (begin, *pieces)
    )
    return PromptTexts(header.removesuffix(begin), question.removeprefix("{passage}"))


def render_chat(
    chat_template: str,
    messages: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    source: str,
    remedy: str,
    answers: bool = False,
) -> str:
    """The text of a chat, as transformers renders its template.

    Args:
        messages: each with its `role` and `content`.
        settings: of the tokenizer; templates read its special tokens.
        source: of the template, for error messages.
        remedy: at the end of these.
        answers: whether the beginning of an answer follows.

    Raises `InputError` for a template that cannot be rendered, or refuses the messages.
    """
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    special = {key: value for key, value in settings.items() if key.endswith("_token")}
    special["enable_thinking"] = False  # Qwen3's would begin with a chain of thought, longer than an answer may be
    try:
        (text,), _ = render_jinja_template(
            [[dict(each) for each in messages]], chat_template=chat_template, add_generation_prompt=answers, **special
        )
    except jinja2.TemplateError as error:
        raise InputError(f"{source}: its chat template cannot be rendered ({error}); {remedy}") from None
    return text


def with_prompt(
    tokenizer: GeneratorTokenizer,
    passage_template: str,
    texts: PromptTexts,
    source: str,
    between: str = "",
    passages_per_prompt: int = 1,
) -> GeneratorTokenizer:
    """The tokenizer of a decoder-only generator with this prompt; `between` stands between two passages of one.

    Raises `InputError` for a prompt that ends in question or passage: nothing would mark where an answer begins.
    """
    after = re.split(r"\{question\}|\{passage\}", texts.question)[-1]
    end = _tokens(tokenizer, after, goes_on=True)
    if not end:
        last = texts.question.rpartition("{")[2].removesuffix("}")
        remedy = rf'add text after it, as in "…{{{last}}}\nAnswer:"'
        raise InputError(f"{source}: the prompt ends in the {last}, {texts.question!r}; {remedy}")
    ends_in_space = after[-1:].isspace()
    pieces = texts.header, passage_template, texts.question
    header, passage, question = pieces if passages_per_prompt > 1 else _space_of_the_header(*pieces)
    space_of_header = " " if passage != passage_template else ""  # stays where there is no passage
    passage, question = _space_of_the_passage(passage, question.removesuffix(after))
    return tokenizer._replace(
        bos=None,
        decoder_start=end[-1],
        prompt_end=tuple(end[:-1]),
        passage_template=passage,
        question_template=question,
        header=(*_tokens(tokenizer, texts.bos or ""), *_tokens(tokenizer, header)),
        separator=tuple(_tokens(tokenizer, between, goes_on=True)),
        answer_template="{answer}" if ends_in_space else " {answer}",
        no_passage=tuple(_tokens(tokenizer, space_of_header, goes_on=True)),
    )


def _space_of_the_header(header: str, passage: str, question: str) -> tuple[str, str, str]:
    """Header, passage and question with a space that ends the header as part of what follows, as in `[INST] Lyon`.

    A question that follows without a space of its own is the first word of a closed book.
    """
    if not header.endswith(" "):
        return header, passage, question
    is_closed_book = question.startswith("{question}") and not passage[-1:].isspace()
    if "{passage}" in question or is_closed_book:
        return header[:-1], passage, f" {question}"
    return header[:-1], f" {passage}", question


def _space_of_the_passage(passage: str, question: str) -> tuple[str, str]:
    """The templates with a space before the passage as part of it: its first word then has the tokens of any other."""
    if " {passage}" not in question:
        return passage, question
    return f" {passage}", question.replace(" {passage}", "{passage}")


def _tokens(tokenizer: GeneratorTokenizer, text: str, goes_on: bool = False) -> list[int]:
    pieces = templates.split_at_special_tokens(text, tokenizer.tokenizer)
    return templates.encode(tokenizer.tokenizer, [pieces], goes_on)[0]


def _listed(fields: Iterable[str]) -> str:
    return " and ".join(f"{{{field}}}" for field in sorted(fields))
