"""The prompt of a config's generator: its templates, a chat template, a system prompt."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rag_jax.config.config import Config
from rag_jax.config.config import Generator as GeneratorOptions
from rag_jax.data import prompts, system_prompts
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.data.validation import validate_dataclass
from rag_jax.errors import InputError
from rag_jax.hub import tokenizers
from rag_jax.index.retokenizing import with_tokens
from rag_jax.models import registry
from rag_jax.models.architecture import Architecture
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.options import PromptOptions
from rag_jax.types import Generator


def with_prompt(
    config: Config,
    architecture: Architecture[Generator],
    tokenizer: GeneratorTokenizer,
    settings: Mapping[str, Any],
    source: str,
) -> GeneratorTokenizer:
    """The tokenizer with the config's prompt; templates that the config leaves out are the architecture's.

    Args:
        settings: of the checkpoint's tokenizer.
        source: of the tokenizer, for error messages.

    Raises `InputError` for a prompt that the network or the tokenizer does not support.
    """
    c = config.generator
    passage = architecture.prompt.passage if c.passage_template is None else c.passage_template
    question = architecture.prompt.question if c.question_template is None else c.question_template
    prompts.check_templates(passage, question)
    system_prompt = system_prompts.text(c.system_prompt)
    if not architecture.is_decoder_only:
        if c.chat or system_prompt:
            name = "generator.chat" if c.chat else "generator.system_prompt"
            raise InputError(f"{name}: not supported by {architecture.name}; leave it out, or use a decoder-only model")
        return prompts.with_templates(tokenizer, passage, question)
    if c.chat:
        if not settings.get("chat_template"):
            raise InputError(f"{source}: the tokenizer has no chat template; set generator.chat to false")
        if c.question_template is None:
            question = question.partition("{question}")[0] + "{question}"  # the template says whose turn it is
        texts = prompts.chat(settings["chat_template"], question, system_prompt, settings, source)
    else:
        texts = prompts.plain(question, system_prompt, tokenizers.added_bos(tokenizer.tokenizer, settings))
    several = architecture.prompt.between, c.passages_per_prompt
    prompted = prompts.with_prompt(tokenizer, passage, texts, source, *several)
    needed = len(prompted.header) + len(prompted.prompt_end)
    if needed + 2 > c.max_input:  # a token of a passage and one of a question
        problem = f"header and template have {needed} tokens, generator.max_input is {c.max_input}"
        raise InputError(f"{source}: {problem}; shorten generator.system_prompt, or raise generator.max_input")
    if len(prompted.prompt_end) >= config.retriever.max_question:
        problem = f"{len(prompted.prompt_end)} tokens of the template follow a question and count as part of it"
        limit = config.retriever.max_question
        raise InputError(f"{source}: {problem}, retriever.max_question is {limit}; raise retriever.max_question")
    return prompted


def change_prompt(components: Components, changes: PromptOptions) -> Components:
    """The components of a model with another prompt, which may change the tokens of the passages too.

    Raises `InputError` as `with_prompt` does.
    """
    if unknown := [name for name in changes if name not in PromptOptions.__annotations__]:
        raise InputError(f"{unknown[0]!r} is no part of a prompt; give {', '.join(PromptOptions.__annotations__)}")
    config, bundle = components.config, components.generator
    config = replace(config, generator=validate_dataclass(GeneratorOptions, {**vars(config.generator), **changes}))
    architecture, settings = registry.generator_of(bundle.config), bundle.tokenizer_settings
    tokenizer = with_prompt(config, architecture, bundle.tokenizer, settings, "generator")
    changed = components.over_same_index(config=config, generator=replace(bundle, tokenizer=tokenizer))
    if changed.passage_tokenizer.key == components.passage_tokenizer.key:
        return changed
    store, search = with_tokens(components.store, changed.passage_tokenizer), components.search
    search = None if search is None else replace(search, store=store)
    return replace(changed, store=store, search=search, loaded=None, opened=None)
