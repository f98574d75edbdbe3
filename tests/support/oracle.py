"""The oracle: transformers' networks at toy size, and the same weights as our parameters.

Every parameter is drawn, biases and LayerNorm scales too, so that none can be forgotten or swapped unnoticed.
"""

from collections.abc import Mapping
from functools import cache, partial
from math import sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from jaxtyping import Integer
from transformers import (
    BartForConditionalGeneration,
    BertModel,
    DPRContextEncoder,
    DPRQuestionEncoder,
    T5ForConditionalGeneration,
)

from rag_jax.hub import bart as bart_files
from rag_jax.hub import bert as bert_files
from rag_jax.hub import decoder as decoder_files
from rag_jax.hub import t5 as t5_files
from rag_jax.hub import tensor_names
from rag_jax.hub.tensors import in_memory
from rag_jax.models import bart, bert, decoder, registry, t5
from rag_jax.models.architecture import GeneratorConfig
from rag_jax.types import Params, Tokens

torch = pytest.importorskip("torch", reason="torch, the oracle, is not installed (CONTRIBUTING.md)")
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# The toy programs run in milliseconds and compile in seconds; unoptimised code compiles in half the time.
jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

BERT_PAD, BART_PAD, T5_PAD = 0, 1, 0
FIRST_WORD = 4  # ids below are special tokens
LAYOUTS = {
    BertModel: (bert_files.NAMES, ""),
    DPRQuestionEncoder: (bert_files.DPR, "question_encoder."),
    DPRContextEncoder: (bert_files.DPR, "ctx_encoder."),
}


def bert_sizes(config: bert.BertConfig) -> dict:
    """The arguments that make transformers' BERT of these sizes."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.token_types,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.layer_norm_eps,
    }


def bart_sizes(config: bart.BartConfig) -> dict:
    """The arguments that make transformers' BART of these sizes."""
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.ffn_width,
        "decoder_ffn_dim": config.ffn_width,
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "scale_embedding": config.scale_embedding,
    }


def t5_sizes(config: t5.T5Config) -> dict:
    """The arguments that make transformers' T5 of these sizes."""
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "d_kv": config.head_width or config.width // config.heads,
        "d_ff": config.ffn_width,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.position_buckets,
        "relative_attention_max_distance": config.max_distance,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.layer_norm_eps,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "tie_word_embeddings": config.tied_head,
        "decoder_start_token_id": T5_PAD,
    }


def tower(kind: type, config: bert.BertConfig, seed: int = 0) -> tuple[torch.nn.Module, Params]:
    """A tower of transformers, of class `kind`, and its weights as our parameters."""
    if kind is BertModel:
        model = BertModel(transformers.BertConfig(**bert_sizes(config)), add_pooling_layer=False)
    else:
        model = kind(transformers.DPRConfig(**bert_sizes(config), projection_dim=config.projection or 0))
    return draw(model, seed), tower_params(model, config, state(model))


def generator(config: bart.BartConfig, seed: int = 0) -> tuple[BartForConditionalGeneration, Params]:
    """BART of transformers, and its weights as our parameters."""
    model = draw(BartForConditionalGeneration(transformers.BartConfig(**bart_sizes(config))), seed)
    return model, generator_params(config, state(model))


def t5_generator(config: t5.T5Config, seed: int = 0) -> tuple[T5ForConditionalGeneration, Params]:
    """T5 of transformers, and its weights as our parameters."""
    model = T5ForConditionalGeneration(transformers.T5Config(**t5_sizes(config)))
    if not config.tied_head:  # transformers ties them whatever the config says, unless weights that differ are loaded
        model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, config.width))
    draw(model, seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".q.weight"):  # T5 does not scale its scores: its queries are drawn smaller
                value.mul_(model.config.d_kv**-0.5)
    return model, t5_params(config, state(model))


def decoder_generator(config: decoder.DecoderConfig, seed: int = 0) -> tuple[torch.nn.Module, Params]:
    """A decoder-only model of transformers, built by the config.json that is written for ours, and its weights."""
    described = decoder_files.describe(config, {})
    theirs = transformers.AutoConfig.for_model(**described, attn_implementation="eager")
    model = draw(transformers.AutoModelForCausalLM.from_config(theirs), seed)
    return model, decoder_params(config, state(model))


def any_generator(config: t5.T5Config | decoder.DecoderConfig, seed: int = 0) -> tuple[torch.nn.Module, Params]:
    """A generator of transformers of the config's family, and its weights as our parameters."""
    return (t5_generator if isinstance(config, t5.T5Config) else decoder_generator)(config, seed)


def any_params(config: t5.T5Config | decoder.DecoderConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """The tensors of such a generator (its state or its gradients) as a tree like our parameters."""
    return t5_params(config, tensors) if isinstance(config, t5.T5Config) else decoder_params(config, tensors)


def next_logits(model: torch.nn.Module, inputs: Integer[np.ndarray, " S"], decoder_inputs: list[int]) -> torch.Tensor:
    """The logits `[T, V]` of what follows each decoder input, after one input without padding."""
    if model.config.is_encoder_decoder:
        answered = {"input_ids": as_torch(inputs[None]), "decoder_input_ids": torch.tensor([decoder_inputs])}
        return model(**answered).logits[0]
    return model(input_ids=as_torch([*inputs.tolist(), *decoder_inputs])[None]).logits[0, len(inputs) :]


def draw(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill the model with random weights that keep activations and logits of order one; dropout off."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or "inv_freq" in name:  # rotary positions: computed, not trained
                continue
            value.normal_(generator=noise)
            if name.endswith("bias"):
                value.mul_(0.2)
            elif value.ndim == 1:  # LayerNorm, RMSNorm
                value.mul_(0.2).add_(1)
            else:
                value.mul_(0.5 if "embed" in name or "shared" in name else 1 / sqrt(value.shape[1]))
    return model.eval()


def state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The model's tensors by name."""
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The gradients that `backward` left, by name; zeros for buffers and for what it did not reach."""
    reached = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {name: np.zeros_like(value) for name, value in state(model).items()} | {
        name: value.numpy() for name, value in reached.items()
    }


def tower_params(model: torch.nn.Module, config: bert.BertConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """The tensors of a tower (its state or its gradients) as a tree like our parameters."""
    table, prefix = LAYOUTS[type(model)]
    kept = tensor_names.normalize_names(in_memory(tensors))
    return tensor_names.from_stored(kept, tower_shapes(config), table, source="oracle", prefix=prefix)


def generator_params(config: bart.BartConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """The tensors of BART (its state or its gradients) as a tree like our parameters."""
    kept = in_memory({name: value for name, value in tensors.items() if name not in bart_files.TIED})
    return tensor_names.from_stored(kept, generator_shapes(config), bart_files.NAMES, source="oracle")


def t5_params(config: t5.T5Config, tensors: Mapping[str, np.ndarray]) -> Params:
    """The tensors of T5 (its state or its gradients) as a tree like our parameters."""
    tied = {*t5_files.TIED, *([t5_files.HEAD] if config.tied_head else [])}
    kept = in_memory({name: value for name, value in tensors.items() if name not in tied})
    return tensor_names.from_stored(kept, generator_shapes(config), t5_files.NAMES, source="oracle")


def decoder_params(config: decoder.DecoderConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """The tensors of a decoder-only model (its state or its gradients) as a tree like our parameters."""
    tied = {decoder_files.HEAD} if config.tied_head else {}
    kept = in_memory({name: value for name, value in tensors.items() if name not in tied})
    return tensor_names.from_stored(kept, generator_shapes(config), decoder_files.NAMES, source="oracle")


@cache
def tower_shapes(config: bert.BertConfig) -> Params:
    """Our parameters' shapes, without their memory."""
    return jax.eval_shape(partial(bert.init, config), jax.random.key(0))


@cache
def generator_shapes(config: GeneratorConfig) -> Params:
    """Our parameters' shapes, without their memory."""
    return jax.eval_shape(partial(registry.generator_of(config).init, config), jax.random.key(0))


def tokens(rng: np.random.Generator, rows: int, length: int, vocab: int, pad: int) -> Tokens:
    """Random right-padded sequences of words; the first is as long as allowed."""
    lengths = rng.integers(1, length + 1, rows)
    lengths[0] = length
    ids = rng.integers(FIRST_WORD, vocab, (rows, length))
    ids[np.arange(length) >= lengths[:, None]] = pad
    return Tokens(jnp.asarray(ids, jnp.int32), jnp.asarray(lengths, jnp.int32))


def other_padding(rng: np.random.Generator, inputs: Tokens, vocab: int) -> Tokens:
    """The same sequences with arbitrary ids behind their ends."""
    noise = jnp.asarray(rng.integers(0, vocab, inputs.ids.shape), jnp.int32)
    return inputs._replace(ids=jnp.where(inputs.mask, inputs.ids, noise))


def torch_inputs(inputs: Tokens) -> dict[str, torch.Tensor]:
    """The same sequences as transformers' arguments."""
    return {"input_ids": as_torch(inputs.ids), "attention_mask": as_torch(inputs.mask)}


def as_torch(array) -> torch.Tensor:
    """Integers and truth values as torch wants them."""
    return torch.from_numpy(np.array(array, np.int64))


def relative(ours, theirs) -> float:
    """The largest difference, relative to the largest magnitude that the oracle computed."""
    ours, theirs = (np.asarray(each, np.float64) for each in (ours, theirs))
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_same_scatter(ours, theirs) -> None:
    """Two samples `[draws, ...]` have the same mean and variance, to five standard errors."""
    ours, theirs = (np.asarray(each, np.float64) for each in (ours, theirs))
    for moment in (ours, theirs), tuple(np.square(each - theirs.mean(axis=0)) for each in (ours, theirs)):
        error = np.sqrt(sum(each.var(axis=0) / len(each) for each in moment))
        np.testing.assert_array_less(np.abs(moment[0].mean(axis=0) - moment[1].mean(axis=0)), 5 * error)
