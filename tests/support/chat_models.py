"""A small random chat model as a folder, and chat templates in the styles of three families."""

from pathlib import Path

import jax

from rag_jax import hub
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.models import decoder
from rag_jax.models.architecture import SpecialTokens
from rag_jax.models.decoder_layer import DecoderConfig
from rag_jax.models.rope import Rope

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + "
    "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '<|im_start|>[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' <|im_end|>' }}{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ 'A: ' + message['content'] + eos_token + "
    "'\n' }}{% else %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "inst": INST, "plain": PLAIN}
SPECIAL = SpecialTokens(None, pad="<|im_end|>", eos="<|im_end|>", start="<|im_end|>", others=("<|im_start|>", "<unk>"))
TEXTS = [
    "user system assistant You are helpful. what colour is it red green blue Question: INST SYS passages do not say"
]
SMALL = DecoderConfig(
    vocab_size=400, width=16, decoder_layers=2, heads=2, kv_heads=1, ffn_width=24, max_positions=512, tied_head=True,
    rope=Rope(100.0), model_type="llama", init_std=0.2
)  # fmt: skip


def settings(template: str | None = CHATML) -> dict:
    """Of its tokenizer."""
    found = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "model_max_length": 512}
    return found | ({} if template is None else {"chat_template": template})


def write(folder: Path, template: str | None = CHATML, **changes: str) -> Path:
    """Save a model with random weights, the same ones every time."""
    tokenizer = train_generator_tokenizer(TEXTS * 9, SMALL.vocab_size, SPECIAL).tokenizer
    config = DecoderConfig(**{**SMALL.__dict__, "vocab_size": tokenizer.get_vocab_size()})
    params = decoder.init(config, jax.random.key(0))
    hub.save(folder, hub.GeneratorCheckpoint(config, params, tokenizer, {}, settings(template) | changes))
    return folder


def write_instructions(path: Path, count: int = 12, start: int = 0) -> Path:
    """Instructions that can be learnt: to name the colour that the input mentions."""
    colours = [("red", "green", "blue")[n % 3] for n in range(start, start + count)]
    given = [f"it is {colour} {'and ' * (n % 5)}" for n, colour in enumerate(colours)]
    pairs = zip(given, colours, strict=True)
    rows = [{"instruction": "what colour", "input": text, "output": colour} for text, colour in pairs]
    write_jsonl(path, rows)
    return path
