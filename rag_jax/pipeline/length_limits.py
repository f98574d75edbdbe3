"""Check lengths and token ids against the sizes of the networks: an index beyond an embedding table yields NaN."""

from collections.abc import Mapping

from tokenizers import Tokenizer

from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.models import registry
from rag_jax.models.architecture import Architecture, GeneratorConfig, TowerConfig
from rag_jax.types import Generator


def check_networks(config: Config, tower: TowerConfig, generator: GeneratorConfig) -> None:
    """Raise `InputError` for a config whose lengths exceed the positions of its question tower or generator."""
    check_positions(config.retriever.tower, tower.max_positions, question_lengths(config))
    lengths = generator_lengths(config, registry.generator_of(generator))
    check_positions(config.generator.checkpoint or "generator", generator.max_positions, lengths)


def question_lengths(config: Config) -> dict[str, int]:
    """The maximum tokens of a question for its tower, by config key."""
    return {"retriever.max_question": config.retriever.max_question}


def passage_lengths(config: Config) -> dict[str, int]:
    """The maximum tokens of a passage for its tower, by config key."""
    return {"retriever.max_passage": config.retriever.max_passage}


def generator_lengths(config: Config, architecture: Architecture[Generator]) -> dict[str, int]:
    """The maximum tokens of the generator's input and output, by config key.

    The decoder reads the start token, but not the last token of an answer.
    """
    c = config.generator
    if architecture.is_decoder_only:
        return {"generator.max_input + generator.max_target": c.max_input + c.max_target}
    return {"generator.max_input": c.max_input, "generator.max_target": c.max_target}


def check_positions(source: str, positions: int | None, lengths: Mapping[str, int]) -> None:
    """Raise `InputError` for a length beyond a network's positions.

    Args:
        source: of the network, for the message.
        positions: None: unlimited.
        lengths: by config key.
    """
    for key, tokens in lengths.items():
        if positions is not None and tokens > positions:
            raise InputError(
                f"{source}: has positions for {positions} tokens, {key} is {tokens}; give {positions} at most"
            )


def check_tokens(source: str, tokenizer: Tokenizer, size: int) -> None:
    """Raise `InputError` for a tokenizer with ids beyond the `size` of a network's vocabulary.

    Special tokens that are not added to a text do not count: transformers adds tokens that were never trained.
    """
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ordinary = set(tokenizer.get_vocab(with_added_tokens=True).values()) - special
    largest = max(ordinary | set(tokenizer.encode("").ids))
    if largest >= size:
        what = f"the tokenizer's ids go up to {largest}, the network's vocabulary has {size} tokens"
        raise InputError(f"{source}: {what}; use the tokenizer that was saved with the weights")


def length_buckets(config: Config, positions: int, header: int = 0) -> tuple[tuple[int, int], ...]:
    """The shapes that questions are padded to: the config's buckets, and multiples of the last up to max_question.

    Lengths are limited to the question tower's `positions`, and leave room for a passage in the generator's input,
    behind a `header` of so many tokens.
    """
    last = config.buckets[-1]
    multiples = range(2, -(-config.retriever.max_question // min(last)) + 1)
    shapes = (*config.buckets, *((last[0] * n, last[1] * n) for n in multiples))
    return tuple((min(q, positions), min(p, config.generator.max_input - header - 1)) for q, p in shapes)
