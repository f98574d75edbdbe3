"""The three parts of the proof at full size, each a process of its own so that its peak memory is its own.

    python tests/full_size.py theirs|ours|back FOLDER

`theirs` saves random towers and a RAG of BERT-base and BART-large with transformers, and what torch computes with them;
`ours` loads them here, computes the same, and saves them again; `back` loads that with transformers.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

B, K, QUESTION, INPUT, TARGET, LENGTH = 2, 2, 16, 64, 8, 12  # LENGTH: of generated answers, the start token included
PAD, BOS, EOS, WORDS = 1, 0, 2, 1_000  # the ids of words begin there


def theirs(folder: Path) -> dict:
    """Save, and compute with torch."""
    import torch
    from transformers import (
        BartConfig,
        DPRConfig,
        DPRContextEncoder,
        RagConfig,
        RagSequenceForGeneration,
        RagTokenForGeneration,
    )

    config = RagConfig.from_question_encoder_generator_configs(DPRConfig(), BartConfig(), n_docs=K)
    token, passage = randomised(RagTokenForGeneration(config), 0), randomised(DPRContextEncoder(DPRConfig()), 1)
    parts = {"question_encoder": token.rag.question_encoder, "generator": token.rag.generator}
    sequence = RagSequenceForGeneration(config=config, **parts)
    token.save_pretrained(folder / "rag")
    passage.save_pretrained(folder / "passage")
    data = {name: torch.from_numpy(each) for name, each in inputs().items()}
    with torch.no_grad():
        vectors = passage(data["passages"]).pooler_output.view(B, K, -1)
        questions = token.rag.question_encoder(data["questions"]).pooler_output
        scores = torch.einsum("bd,bkd->bk", questions, vectors)
        given = {"context_input_ids": data["inputs"], "context_attention_mask": torch.ones_like(data["inputs"])}
        given |= {"doc_scores": scores, "n_docs": K}
        found = {
            "scores": scores,
            "vectors": vectors,
            "logits": token(**given, decoder_input_ids=data["labels"]).logits,
        }
        for name, model in (("token", token), ("sequence", sequence)):
            found[f"{name}_loss"] = model(**given, labels=data["labels"]).loss
        searched = {"max_length": LENGTH, "min_length": LENGTH, "no_repeat_ngram_size": 2}
        for beams in (1, 4):
            for name, model in (("token", token), ("sequence", sequence)):
                found[f"{name}_{beams}_beams"] = model.generate(**given, num_beams=beams, **searched)
    np.savez(folder / "theirs.npz", **{name: each.numpy() for name, each in found.items()})
    return {"parameters": sum(each.numel() for each in token.parameters())}


def randomised(model, seed: int):
    """transformers' model with random weights that keep activations and logits of order one."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.05 if "embed" in name or "shared" in name else 1 / np.sqrt(value.shape[-1])
            # Or a decoder of random layers forgets both what it reads and what it wrote.
            scale *= 0.1 if "fc2" in name else 0.8 if "v_proj" in name or "out_proj" in name else 1
            if value.ndim == 1:
                value.add_(torch.randn(value.shape, generator=noise), alpha=0.05)
            else:
                value.copy_(torch.randn(value.shape, generator=noise) * scale)
    return model.eval()


def inputs() -> dict[str, np.ndarray]:
    """Token ids; every sequence is as long as its row, so that there is nothing to mask."""
    rng = np.random.default_rng(0)
    labels = rng.integers(WORDS, 50_000, (B, TARGET))
    labels[:, 0], labels[:, -1] = BOS, EOS
    return {
        "questions": rng.integers(WORDS, 30_000, (B, QUESTION)),
        "passages": rng.integers(WORDS, 30_000, (B * K, INPUT)),
        "inputs": rng.integers(WORDS, 50_000, (B * K, INPUT)),
        "labels": labels,
    }


def ours(folder: Path) -> dict:
    """Load here, compare with what torch computed, save."""
    import jax
    import jax.numpy as jnp

    from rag_jax import hub

    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(8)))
    before, began = memory("VmRSS"), time.perf_counter()
    rag = hub.load(folder / "rag")
    assert isinstance(rag, hub.RagCheckpoint)
    params = {"tower": rag.tower.params, "generator": rag.generator.params}
    jax.block_until_ready(params)
    loading, held = time.perf_counter() - began, sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    peak = memory("VmHWM") - before
    expected = np.load(folder / "theirs.npz")
    worst = compare(rag, hub.load_tower(folder / "passage"), expected)
    began = time.perf_counter()
    hub.save(folder / "ours", rag)
    return worst | {
        "parameter_bytes": held,
        "peak_over_parameters": peak / held,
        "load_seconds": loading,
        "save_seconds": time.perf_counter() - began,
        "peak_bytes": memory("VmHWM"),
    }


def compare(rag, passage, expected) -> dict:
    """The largest differences, absolute; and whether the same tokens were written."""
    import jax
    import jax.numpy as jnp

    from rag_jax import beam, likelihood, logits_processors, rag_sequence, rag_token, reading, retrieval
    from rag_jax.core.decode.search import GenerationLimits
    from rag_jax.core.decode.tree_cache import EncodedInputs
    from rag_jax.models import bart, bert
    from rag_jax.types import Tokens

    tower, generator = bert.tower(rag.tower.config), bart.generator(rag.generator.config)
    data = {name: jnp.asarray(each, jnp.int32) for name, each in inputs().items()}

    def whole(ids):
        return Tokens(ids, jnp.full(ids.shape[:-1], ids.shape[-1], jnp.int32))

    vectors = jax.jit(bert.tower(passage.config))(passage.params, whole(data["passages"])).reshape(B, K, -1)
    scores = retrieval.scores(jax.jit(tower)(rag.tower.params, whole(data["questions"])), vectors)
    prior = likelihood.doc_log_prior(scores)
    by_row = whole(data["inputs"].reshape(B, K, INPUT))
    logits = jax.jit(lambda params: reading.read(generator, params, by_row, data["labels"]))(rag.generator.params)
    chosen = likelihood.target_log_probs(logits[:, :, :-1], data["labels"][:, 1:])
    mask = jnp.ones((B, TARGET - 1), bool)
    found = {
        "scores": (scores, expected["scores"]),
        "vectors": (vectors, expected["vectors"]),
        "logits": (logits.reshape(B * K, TARGET, -1), expected["logits"]),
        "token_loss": (-likelihood.rag_token(prior, chosen, mask), expected["token_loss"]),
        "sequence_loss": (-likelihood.rag_sequence(prior, chosen, mask), expected["sequence_loss"]),
    }
    worst = {f"{name}_difference": float(np.abs(np.subtract(*pair)).max()) for name, pair in found.items()}
    limits, nothing = (
        GenerationLimits((EOS,), EOS, LENGTH - 1),
        Tokens(jnp.zeros((B, 0), jnp.int32), jnp.zeros(B, jnp.int32)),
    )
    obeyed = (
        logits_processors.no_repeat_ngram(2),
        logits_processors.min_length(LENGTH, EOS),
        logits_processors.forced_eos(LENGTH - 1, EOS),
    )
    decoders = {"token": rag_token.decode, "sequence": rag_sequence.thorough}
    for name, beams in ((name, beams) for name in decoders for beams in (1, 4)):

        def write(params, name=name, beams=beams):
            reader = EncodedInputs(generator, params, generator.encode(params, whole(data["inputs"])))
            search = partial(beam.search, num_beams=beams, logits_processors=obeyed)
            return decoders[name](reader, prior, nothing, search=search, limits=limits)

        written = np.asarray(jax.jit(write)(rag.generator.params).tokens[:, 0])
        wanted = expected[f"{name}_{beams}_beams"][:, 1:]
        worst[f"{name}_{beams}_beams"] = written.tolist()
        worst[f"{name}_{beams}_beams_same"] = np.array_equal(written, wanted)
    return worst


def back(folder: Path) -> dict:
    """Load what was saved here with transformers."""
    import torch
    from transformers import RagTokenForGeneration

    model, told = RagTokenForGeneration.from_pretrained(folder / "ours", output_loading_info=True)
    expected = np.load(folder / "theirs.npz")
    data = {name: torch.from_numpy(each) for name, each in inputs().items()}
    given = {"context_input_ids": data["inputs"], "context_attention_mask": torch.ones_like(data["inputs"])}
    given |= {"doc_scores": torch.from_numpy(expected["scores"]), "n_docs": K}
    with torch.no_grad():
        logits = model.eval()(**given, decoder_input_ids=data["labels"]).logits
    keys = {name: sorted(map(str, found)) for name, found in told.items() if found}
    return {"logits_difference": float(np.abs(logits.numpy() - expected["logits"]).max()), "keys": keys}


def memory(what: str) -> int:
    """This process's memory in bytes: VmRSS now, VmHWM at its highest."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    part, where = sys.argv[1:]
    started = time.perf_counter()
    result = {"theirs": theirs, "ours": ours, "back": back}[part](Path(where))
    print(json.dumps(result | {"seconds": time.perf_counter() - started, "peak": memory("VmHWM")}))
