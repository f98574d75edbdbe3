"""A run with a decoder-only generator from scratch: trained, asked, and saved as what transformers loads."""

import dataclasses
import json

import pytest

import oracle
import rag_jax
from rag_jax.config.config import Compute, Config
from rag_jax.errors import InputError
from rag_jax.training.run import fit, train_and_evaluate

QUESTIONS = ["what colour is Norburg", "what colour is Goldau"]


def with_decoder(config: Config, **changes) -> Config:
    generator = dataclasses.replace(
        config.generator,
        architecture="llama",
        lengths=(40,),
        **(
            {"max_input": 64, "system_prompt": "Name it.", "question_template": " {question}="}
            | changes.pop("generator", {})
        ),
    )
    changes = {"steps": 150, "save_every": 150, "log_every": 10, **changes}
    return dataclasses.replace(config, generator=generator, **changes)


@pytest.fixture(scope="module")
def trained(towns: Config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("decoder") / "run"
    config = with_decoder(towns, compute=Compute(scan=True))
    return workdir, train_and_evaluate(config, workdir)[1]


def test_it_learns(trained):
    workdir, results = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert results["exact_match"] > 0.3


def test_its_generator_is_one_that_transformers_loads_and_continues_alike(trained, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rag = rag_jax.RAG.from_workdir(trained[0])
    rag.save_pretrained(tmp_path / "saved")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved" / "generator").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved" / "generator")
    assert tokenizer.eos_token_id == rag.components.generator_tokenizer.eos
    (answer,) = rag.answer(QUESTIONS[:1], num_docs=1)
    parts, passage = rag.components.generator_tokenizer, answer.passages[0]
    (read,), (prompt,) = parts.passages([(passage.title, passage.text)]), parts.prompts(QUESTIONS[:1])
    prompt = [*parts.header, *read, *prompt, parts.decoder_start]
    ids = [*parts.prefixes([answer.text])[0], parts.eos]
    with oracle.torch.no_grad():
        log_probs = model(oracle.as_torch([[*prompt, *ids]])).logits[0, len(prompt) - 1 :].log_softmax(1)
    total = sum(log_probs[i, token].item() for i, token in enumerate(ids))
    assert total == pytest.approx(answer.log_prob, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"chat": True}, r"^generator: the tokenizer has no chat template; set generator\.chat to false$"),
        ({"question_template": " // {question}"}, "^generator: the prompt ends in the question"),
        ({"system_prompt": "x" * 200}, r"header and template have \d+ tokens, generator\.max_input is \d+; shorten"),
    ],
)
def test_prompts_that_cannot_be_are_refused(towns, tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        fit(with_decoder(towns, generator=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_system_prompt_is_for_decoder_only_models(towns, tmp_path):
    config = dataclasses.replace(towns, generator=dataclasses.replace(towns.generator, system_prompt="Be brief."))
    with pytest.raises(InputError, match=r"^generator\.system_prompt: not supported by bart; leave it out, or use"):
        fit(config, tmp_path / "run")
