"""A run with a decoder-only generator from scratch: trained, asked, and saved as what transformers loads."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer

import oracle
import world
from rag_jax import cli
from rag_jax.config.config import Compute, Config
from rag_jax.core.variants import Model
from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.evaluation.baselines import GoldPassages, with_engine
from rag_jax.evaluation.predict import Asked, model_facts
from rag_jax.moderation import calibration
from rag_jax.moderation.categories import Categories, Category
from rag_jax.moderation.moderator import Moderator
from rag_jax.pipeline.answers import Answer
from rag_jax.pipeline.assembly import load_generator
from rag_jax.pipeline.pretrained import combine
from rag_jax.rag import RAG
from rag_jax.training.run import fit, train_and_evaluate
from rag_jax.types import PASSAGE, Tokens

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


@pytest.mark.extended
def test_it_learns_with_products_in_bfloat16(trained, towns, tmp_path):
    def first_loss(workdir: Path) -> float:
        lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return next(line["loss"] for line in lines if "loss" in line)

    config = with_decoder(towns, compute=Compute(scan=True, remat="dots", matmul_precision="bfloat16"))
    _, results = train_and_evaluate(config, tmp_path / "run")
    assert results["exact_match"] > 0.3
    assert first_loss(tmp_path / "run") == pytest.approx(first_loss(trained[0]), rel=0.02)
    assert first_loss(tmp_path / "run") != first_loss(trained[0])


@pytest.fixture(scope="module")
def rag(trained) -> RAG:
    return RAG.from_workdir(trained[0])


@pytest.fixture(scope="module")
def theirs(rag, tmp_path_factory):
    """The generator's folder, as transformers loads it."""
    saved = tmp_path_factory.mktemp("decoder") / "saved"
    rag.save_pretrained(saved)
    return saved / "generator"


def check_log_prob(rag: RAG, folder: Path, answer: Answer) -> None:
    """Check `log p(y|x)` of an answer to the first question from one prompt, with transformers."""
    from transformers import AutoModelForCausalLM

    model, parts = AutoModelForCausalLM.from_pretrained(folder).eval(), rag.components.generator_tokenizer
    first, *others = parts.passages([(passage.title, passage.text) for passage in answer.passages])
    (question,) = parts.prompts(QUESTIONS[:1])
    passages = [*first, *(token for each in others for token in (*parts.separator, *each))]
    at = question.index(PASSAGE) if PASSAGE in question else 0
    rest = question[at + (PASSAGE in question) :]
    prompt = [*parts.header, *question[:at], *passages, *rest, parts.decoder_start]
    ids = [*parts.prefixes([answer.text])[0], parts.eos]
    with oracle.torch.no_grad():
        log_probs = model(oracle.as_torch([[*prompt, *ids]])).logits[0, len(prompt) - 1 :].log_softmax(1)
    total = sum(log_probs[i, token].item() for i, token in enumerate(ids))
    assert total == pytest.approx(answer.log_prob, abs=1e-4)


@pytest.mark.extended
def test_its_generator_is_one_that_transformers_loads_and_continues_alike(rag, theirs):
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(theirs).eos_token_id == rag.components.generator_tokenizer.eos
    (answer,) = rag.answer(QUESTIONS[:1], num_docs=1)
    check_log_prob(rag, theirs, answer)


def with_passages_per_prompt(rag: RAG, together: int, model: Model = "token") -> RAG:
    config = dataclasses.replace(rag.components.config, model=model)
    generator = dataclasses.replace(config.generator, passages_per_prompt=together)
    config = dataclasses.replace(config, generator=generator)
    return RAG(dataclasses.replace(rag.components, config=config), rag.params)


@pytest.mark.extended
def test_several_passages_are_read_in_one_prompt(rag, theirs, tmp_path):
    together = with_passages_per_prompt(rag, 2)
    (answer,) = together.answer(QUESTIONS[:1], num_docs=2)
    check_log_prob(together, theirs, answer)
    assert answer.token_posteriors is None
    assert [passage.posterior for passage in answer.passages] == [None, None]
    with pytest.raises(InputError, match="passages that were read together have no posterior to draw"):
        figures.token_posterior(QUESTIONS[0], answer, tmp_path / "figure.png")


@pytest.mark.extended
def test_the_prompts_of_a_question_are_marginalised_over(rag):
    """Three passages in two prompts: p(y|x) = p(z1 or z2|x) p(y|x, z1, z2) + p(z3|x) p(y|x, z3)."""
    together = with_passages_per_prompt(rag, 2, "sequence")
    (answer,) = together.answer(QUESTIONS[:1], num_docs=3)
    first, second, third = np.exp([passage.log_prior for passage in answer.passages])
    under_two, under_three = (
        np.exp(together.log_likelihood(QUESTIONS[:1], [answer.text], num_docs=k))[0] for k in (2, 3)
    )
    (row,) = rag.components.store.find([answer.passages[2].id]).tolist()
    third_alone = with_engine(together, GoldPassages({QUESTIONS[0]: [row]}))
    under_third = np.exp(third_alone.log_likelihood(QUESTIONS[:1], [answer.text], num_docs=1))[0]
    assert under_three == pytest.approx((first + second) * under_two + third * under_third, rel=1e-5)


@pytest.mark.extended
@pytest.mark.parametrize("template", ["{question}: {passage}", "{question}: {passage} {question}"])
def test_the_question_may_stand_before_the_passage(rag, theirs, template):
    bundle = rag.components.generator
    tokenizer = bundle.tokenizer._replace(question_template=template)
    components = dataclasses.replace(rag.components, generator=dataclasses.replace(bundle, tokenizer=tokenizer))
    first = RAG(components, rag.params)
    (answer,) = first.answer(QUESTIONS[:1], num_docs=1)
    before, behind = (float(each.log_likelihood(QUESTIONS[:1], ["Goldau"], num_docs=1)[0]) for each in (first, rag))
    check_log_prob(first, theirs, answer._replace(text="Goldau", log_prob=before))
    assert before != pytest.approx(behind, abs=0.01)


@pytest.mark.extended
def test_a_long_prompt_is_read_in_chunks(rag):
    config = dataclasses.replace(
        rag.components.config,
        compute=Compute(prefill_chunk=16),
        generator=dataclasses.replace(rag.components.config.generator, lengths=()),
    )
    in_chunks = RAG(dataclasses.replace(rag.components, config=config), rag.params)
    prompts = Tokens(jnp.ones((1, 40), jnp.int32), jnp.full(1, 40, jnp.int32))
    reads = jax.make_jaxpr(in_chunks.components.networks.generator.encode)(rag.params.generator, prompts)
    assert "length=3\n" in str(reads), "no loop over three chunks"
    for found, expected in zip(in_chunks.answer(QUESTIONS), rag.answer(QUESTIONS), strict=True):
        assert found.text == expected.text
        assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"checkpoint": "x"}, "^'checkpoint' is no part of a prompt; give chat, system_prompt, question_template$"),
        ({"chat": 1}, "^chat is 1; give true or false$"),
        ({"chat": True}, "^generator: the tokenizer has no chat template"),
        ({"question_template": "no field"}, r"^generator\.question_template is 'no field'; write \{question\}"),
    ],
)
def test_prompts_that_a_model_cannot_take_are_refused(rag, changes, told):
    with pytest.raises(InputError, match=told):
        rag.with_prompt(**changes)


def test_a_trained_model_takes_another_question_template(rag):
    asked = rag.with_prompt(question_template=" Which colour is it: {question}?")
    assert asked.components.generator_tokenizer.question_template == " Which colour is it: {question}"
    assert asked.components.generator_tokenizer.header == rag.components.generator_tokenizer.header
    assert asked.log_likelihood(QUESTIONS[0], "red") != pytest.approx(rag.log_likelihood(QUESTIONS[0], "red"), abs=1e-3)


@pytest.mark.extended
def test_a_trained_model_takes_another_system_prompt(rag, towns):
    asked = rag.with_prompt(system_prompt="Name the colour, and nothing else.")
    header = asked.components.generator_tokenizer.header
    assert header != rag.components.generator_tokenizer.header
    config = with_decoder(towns, generator={"system_prompt": "Name the colour, and nothing else."})
    assert (
        asked.components.generator_tokenizer[1:]
        == load_generator(config, rag.components.generator_tokenizer).tokenizer[1:]
    )
    before, behind = (each.log_likelihood(QUESTIONS[0], "Goldau") for each in (rag, asked))
    assert before != pytest.approx(behind, abs=1e-3)
    assert rag.with_prompt(system_prompt="Name it.").log_likelihood(QUESTIONS[0], "Goldau") == pytest.approx(
        before, abs=1e-5
    )
    assert asked.with_prompt(system_prompt=None).components.generator_tokenizer.header == ()
    assert model_facts(asked, Asked())["system_prompt"] == "Name the colour, and nothing else."
    with pytest.raises(InputError, match="none has this name; give none, guardrail, grounded, or a sentence"):
        rag.with_prompt(system_prompt="gaurdrail")


@pytest.mark.extended
def test_a_system_prompt_is_an_option_of_the_commands(trained, tmp_path, capsys):
    workdir, _ = trained
    asked = ["answer", "--workdir", str(workdir), "--output", str(tmp_path / "a.jsonl"), "--file"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "1", "question": QUESTIONS[0], "answers": ["green"]}) + "\n")
    cli.main([*asked, str(questions), "--system-prompt", "Name its colour."])
    own = RAG.from_workdir(workdir)
    (line,) = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    expected = own.with_prompt(system_prompt="Name its colour.").answer(QUESTIONS[0])
    assert (line["answer"], line["log_prob"]) == (expected.text, pytest.approx(expected.log_prob, abs=1e-5))
    with pytest.raises(SystemExit) as refused:
        cli.main([*asked, str(questions), "--system-prompt", "none"])
    assert refused.value.code == 2, "the answers in the file are those of another prompt"
    with pytest.raises(SystemExit) as refused:
        cli.main([*asked, str(questions), "--system-prompt", "guardrail"])
    assert refused.value.code == 2
    assert "header and template have" in capsys.readouterr().err, "longer than the model reads"
    scored = [
        "evaluate",
        "--workdir",
        str(workdir),
        "--questions",
        str(questions),
        "--output",
        str(tmp_path / "scored"),
    ]
    cli.main([*scored, "--system-prompt", "Name its colour."])
    assert json.loads((tmp_path / "scored" / "metrics.json").read_text())["system_prompt"] == "Name its colour."


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"chat": True}, r"^generator: the tokenizer has no chat template; set generator\.chat to false$"),
        ({"question_template": " // {question}"}, "^generator: the prompt ends in the question"),
        ({"passages_per_prompt": 0}, r"^generator\.passages_per_prompt is 0; give 1 or more$"),
        ({"system_prompt": "x " * 200}, r"header and template have \d+ tokens, generator\.max_input is \d+; shorten"),
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


def test_other_end_tokens_of_a_checkpoint_are_told(theirs, tmp_path, capsys) -> None:
    """As Llama 3's, whose generation config ends an answer at the end of the text and of the turn."""
    world.write_tower(tmp_path / "tower")
    shutil.copytree(theirs, tmp_path / "generator")
    tokenizer = Tokenizer.from_file(str(theirs / "tokenizer.json"))
    end = tokenizer.token_to_id(json.loads((theirs / "tokenizer_config.json").read_text())["eos_token"])
    for ids, is_told in ((end, False), ([end], False), ([end, 5], True)):
        (tmp_path / "generator" / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        combine(str(tmp_path / "tower"), str(tmp_path / "generator"))
        told = capsys.readouterr().err
        assert (f"ends answers at {tokenizer.id_to_token(5)} too, which here end at" in told) == is_told


CATEGORIES = Categories((Category("red", "whatever is red"),), "blue")


@pytest.fixture(scope="module")
def moderator(theirs, tmp_path_factory) -> Moderator:
    """A model that was not trained to moderate, asked to."""
    folder = tmp_path_factory.mktemp("long")
    world.write_tower(folder / "tower", max_positions=128)
    shutil.copytree(theirs, folder / "generator")
    stored = json.loads((theirs / "config.json").read_text())
    (folder / "generator" / "config.json").write_text(json.dumps(stored | {"max_position_embeddings": 512}))
    return Moderator.self_reflecting(RAG.from_networks(folder / "tower", folder / "generator"), CATEGORIES)


@pytest.mark.extended
def test_self_reflection_reads_the_categories_and_the_role_in_its_prompt(moderator):
    tokenizer = moderator.rag.components.generator_tokenizer
    header = tokenizer.tokenizer.decode(list(tokenizer.header), skip_special_tokens=False)
    assert "- red: whatever is red\n- blue: everything else" in header
    reads = moderator._asked("answer").components.generator_tokenizer
    assert "Text, the answer of an assistant: {question}" in reads.question_template
    assert reads.header == tokenizer.header, "nothing is compiled again"


@pytest.mark.extended
def test_self_reflection_is_calibrated_on_texts_without_content(moderator):
    found = moderator(calibration.CONTENT_FREE)
    mean = [sum(each.probabilities[name] for each in found) / len(found) for name in CATEGORIES.names]
    bare = dataclasses.replace(moderator, calibration=calibration.Calibration())(calibration.CONTENT_FREE)
    before = [sum(each.probabilities[name] for each in bare) / len(bare) for name in CATEGORIES.names]
    assert abs(mean[0] - 0.5) < abs(before[0] - 0.5) + 1e-6
    assert mean == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.extended
def test_each_role_is_calibrated_under_its_own_prompt(moderator):
    for role in ("question", "answer"):
        found = moderator(calibration.CONTENT_FREE, role)
        assert sum(each.probabilities["red"] for each in found) / len(found) == pytest.approx(0.5, abs=0.05)
    assert moderator._calibration("question") != moderator._calibration("answer")


@pytest.mark.extended
def test_the_role_changes_what_is_asked(moderator):
    question, answer = (moderator("Goldau is red", role).probabilities["red"] for role in ("question", "answer"))
    assert question != pytest.approx(answer, abs=1e-6)
