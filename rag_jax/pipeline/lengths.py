"""What is asked of networks, against what they have: a position or a token beyond their tables is NaN, and no error."""

from collections.abc import Mapping

from tokenizers import Tokenizer

from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.models.architecture import GeneratorConfig, TowerConfig


def check_networks(config: Config, tower: TowerConfig, generator: GeneratorConfig) -> None:
    """Refuse a config that asks its question tower or its generator for more tokens than they have positions for."""
    check_positions(config.retriever.tower, tower.max_positions, question(config))
    check_positions(config.generator.checkpoint or "generator", generator.max_positions, inputs(config))


def question(config: Config) -> dict[str, int]:
    """Tokens that the question tower may be given, by the key that says so."""
    return {"retriever.max_question": config.retriever.max_question}


def passage(config: Config) -> dict[str, int]:
    """Tokens that the passage tower may be given."""
    return {"retriever.max_passage": config.retriever.max_passage}


def inputs(config: Config) -> dict[str, int]:
    """Tokens that the generator may read, and write: what an answer starts from counts instead of its last token."""
    c = config.generator
    return {"generator.max_input": c.max_input, "generator.max_target": c.max_target}


def check_positions(source: str, positions: int | None, asked: Mapping[str, int]) -> None:
    """Refuse lengths, named by the keys that ask for them, for which a network of `source` has no positions.

    None: it has as many as there are tokens.
    """
    for key, tokens in asked.items():
        if positions is not None and tokens > positions:
            raise InputError(
                f"{source}: has positions for {positions} tokens, {key} is {tokens}; give {positions} at most"
            )


def check_tokens(source: str, tokenizer: Tokenizer, size: int) -> None:
    """Refuse a tokenizer that gives an id beyond the `size` of a network's vocabulary.

    Special tokens that it does not set around a text do not count: transformers adds roles that were never trained.
    """
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    given = set(tokenizer.get_vocab(with_added_tokens=True).values()) - special
    most = max(given | set(tokenizer.encode("").ids))
    if most >= size:
        what = f"the tokenizer's ids go up to {most}, the network's vocabulary has {size} tokens"
        raise InputError(f"{source}: {what}; take the tokenizer that was saved with the weights")


def ladder(config: Config, positions: int) -> tuple[tuple[int, int], ...]:
    """The shapes that questions are padded to: the config's buckets, and multiples of the last up to max_question.

    None is longer than the question tower's `positions`, or leaves a passage no room in the generator's input.
    """
    last = config.buckets[-1]
    times = range(2, -(-config.retriever.max_question // min(last)) + 1)
    shapes = (*config.buckets, *((last[0] * n, last[1] * n) for n in times))
    return tuple((min(q, positions), min(p, config.generator.max_input - 1)) for q, p in shapes)
