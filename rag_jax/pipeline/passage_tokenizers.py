"""The tokenizer of passages for a generator that is named: a workdir, a checkpoint, a tokenizer.json.

No weights are read. The tokens are those that a model of this generator reads, so that a store which has them opens
without tokenising.
"""

from pathlib import Path

from rag_jax import hub
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.config.files import load_config
from rag_jax.data.tokenizers import GeneratorTokenizer, generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub import configs, loading, tokenizers
from rag_jax.hub.locate import is_gguf
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.models import registry
from rag_jax.pipeline import networks, pretrained, workdir_tokenizers
from rag_jax.pipeline.prompt import with_prompt

DEFAULT_LENGTH = 256  # tokens of a passage


def load_passage_tokenizer(source: str, max_length: int | None = None) -> PassageTokenizer:
    """The passage tokenizer of a generator.

    Args:
        max_length: tokens of a passage; None: those of a workdir's model, else 256.

    Raises `InputError` where there is no tokenizer, or one that does not fit its network.
    """
    path = Path(source)
    folder = path.parent if path.name == "tokenizer.json" else path
    if (folder / workdir_tokenizers.FINGERPRINTS).exists():
        config = load_config(folder / "config.json")
        return PassageTokenizer(_of_workdir(config, folder), max_length or config.generator.max_passage)
    if path.suffix == ".json" and not (path.name == "tokenizer.json" and (folder / "config.json").exists()):
        return PassageTokenizer(pretrained.load_generator_tokenizer(path), max_length or DEFAULT_LENGTH)
    return PassageTokenizer(_of_checkpoint(str(folder)), max_length or DEFAULT_LENGTH)


def _of_workdir(config: Config, workdir: Path) -> GeneratorTokenizer:
    tokenizer = workdir_tokenizers.load(workdir, networks.special_tokens(config))
    checkpoint = config.generator.checkpoint
    if checkpoint is None:
        return with_prompt(config, networks.generator_architecture(config), tokenizer, {}, str(workdir))
    stored = loading.describe_generator(checkpoint)
    architecture = registry.generator_of(configs.generator(stored.config))
    settings = {} if stored.tokenizer is None else stored.tokenizer.settings
    return with_prompt(config, architecture, tokenizer, settings, str(workdir))


def _of_checkpoint(source: str) -> GeneratorTokenizer:
    stored = loading.describe_generator(source)
    if stored.tokenizer is None:
        raise InputError(f"{source}: holds no tokenizer; save the checkpoint with its own (tokenizer.json)")
    sizes, (found, settings) = configs.generator(stored.config), stored.tokenizer
    architecture = registry.generator_of(sizes)
    special = tokenizers.special_tokens(architecture, settings, source)
    fitted = tokenizers.fit_to_vocabulary(found, sizes.vocab_size, source)
    tokenizer, has_chat = generator_tokenizer(fitted, source, special), "chat_template" in settings
    config = _config(source, has_chat and architecture.is_decoder_only)
    return with_prompt(config, architecture, tokenizer, settings, source)


def _config(source: str, chat: bool) -> Config:
    """The config of a model with a checkpoint: a RAG checkpoint says how passages are written, for others the
    architecture does.
    """
    folder = hub.resolve(source)
    if not is_gguf(folder) and configs.read_config(folder).get("model_type") == "rag":
        return pretrained.describe(source)
    return Config(Data(), Retriever(source), Generator(checkpoint=source, chat=chat))
