"""The tokenizer of passages for a generator that is named: a workdir, a checkpoint, a tokenizer.json.

No weights are read. The tokens are those that a model of this generator reads, so that a store which has them opens
without tokenising.
"""

from pathlib import Path

from rag_jax import hub
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.config.files import load_config
from rag_jax.data.tokenizers import GeneratorTokenizer
from rag_jax.hub import configs, loading
from rag_jax.hub.locate import is_gguf
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.models import registry
from rag_jax.models.architecture import Architecture
from rag_jax.pipeline import networks, pretrained, workdir_tokenizers
from rag_jax.pipeline.prompt import with_prompt
from rag_jax.types import Generator as GeneratorNetwork

DEFAULT_LENGTH = 256  # tokens of a passage


def load_passage_tokenizer(source: str, max_length: int | None = None) -> PassageTokenizer:
    """The passage tokenizer of a generator.

    Args:
        max_length: tokens of a passage; None: those of a workdir's model, else 256.

    Raises `InputError` where there is no tokenizer, or one that does not fit its network.
    """
    path = Path(source)
    folder = path.parent if path.name == "tokenizer.json" else path
    own_length = DEFAULT_LENGTH
    if (folder / workdir_tokenizers.FINGERPRINTS).exists():
        config = load_config(folder / "config.json")
        tokenizer, own_length = _of_workdir(config, folder), config.generator.max_passage
    elif path.suffix == ".json" and not (folder / "config.json").exists():
        tokenizer = pretrained.load_generator_tokenizer(path)
    else:
        tokenizer = _of_checkpoint(str(folder))
    return PassageTokenizer(tokenizer, max_length or own_length)


def _of_workdir(config: Config, workdir: Path) -> GeneratorTokenizer:
    tokenizer = workdir_tokenizers.load(workdir, networks.special_tokens(config))
    checkpoint = config.generator.checkpoint
    if checkpoint is None:
        return with_prompt(config, networks.generator_architecture(config), tokenizer, {}, str(workdir))
    stored = loading.describe_generator(checkpoint)
    return with_prompt(config, _architecture(stored), tokenizer, stored.settings, str(workdir))


def _of_checkpoint(source: str) -> GeneratorTokenizer:
    stored = loading.describe_generator(source)
    architecture, tokenizer = _architecture(stored), pretrained.described_tokenizer(stored, source)
    config = _config(source, architecture.is_decoder_only and "chat_template" in stored.settings)
    return with_prompt(config, architecture, tokenizer, stored.settings, source)


def _architecture(stored: loading.GeneratorDescription) -> Architecture[GeneratorNetwork]:
    return registry.generator_of(configs.generator(stored.config))


def _config(source: str, chat: bool) -> Config:
    """The config of a model with a checkpoint: a RAG checkpoint says how passages are written, for others the
    architecture does.
    """
    folder = hub.resolve(source)
    if not is_gguf(folder) and configs.read_config(folder).get("model_type") == "rag":
        return pretrained.describe(source)
    return Config(Data(), Retriever(source), Generator(checkpoint=source, chat=chat))
