"""A digest of a model with its index, by content: two that have it in common give the same answers."""

import jax

from rag_jax.data.tokenizers import fingerprint as of_tokenizer
from rag_jax.pipeline import digests
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams

# What a config says of how answers are computed; where its files are found does not matter.
RETRIEVER = ("max_question", "engine", "precision", "vector_norm")
GENERATOR = ("max_passage", "max_input", "max_target", "passage_template", "question_template", "question_from_tower")


def of_answers(components: Components, params: RagParams, asked: object) -> str:
    """A digest of everything that answers depend on: the model, its index, and what is `asked` (plain JSON)."""
    c = components.config
    told = {
        "asked": asked,
        "model": c.model,
        "start": components.decoder_start_token,
        "long_questions": c.data.long_questions,
        "retriever": {name: getattr(c.retriever, name) for name in RETRIEVER},
        "generator": {name: getattr(c.generator, name) for name in GENERATOR},
        "questions": list(components.bi_encoder.input_format),
        "networks": [repr(components.bi_encoder.config), repr(components.generator.config)],
        "tokenizers": [
            of_tokenizer(components.bi_encoder.tokenizer),
            of_tokenizer(components.generator_tokenizer.tokenizer),
        ],
        "index": [digests.of(digests.passages(components.store)), digests.of(digests.vectors(components.store))],
        "searched": components.store.manifest and components.store.manifest.engines.get(c.retriever.engine),
        "shapes": [f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(params)],
        "parameters": digests.of(digests.leaves(params)),
    }
    return digests.of([digests.plain(told)])
