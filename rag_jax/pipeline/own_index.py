"""The index that a run builds in its workdir by the passage tower that it has trained.

A run that goes on replaces it. An index by other towers, one that `rag-jax index` built, or changed since, and a link
are not the run's, and are refused.
"""

from pathlib import Path

from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership
from rag_jax.pipeline import checkpoint_folders


def check(folder: Path) -> None:
    """Raise `InputError` for an index that no run built by the towers that it trained, or that was changed since."""
    remedy = "move it away, or choose another --workdir"
    if folder.is_symlink():
        raise InputError(f"{folder}: a link, and the run writes its own index there; {remedy}")
    ownership.check_available(folder)
    found = manifest.read_if_there(folder)
    pending = manifest.find_pending_build(folder, found) if folder.exists() else None
    # The workdir may have been moved since: WORKDIR/towers, or WORKDIR/towers/passage.
    if found is not None and checkpoint_folders.TOWERS not in Path(found.tower["source"]).parts[-2:]:
        raise InputError(f"{folder}: an index by {found.tower['source']}, and the run writes its own there; {remedy}")
    for spec in (each.build_spec for each in (found, pending) if each is not None):
        if spec is None or "content" in (spec["corpus"] or {}):  # which only `rag-jax index` records
            raise InputError(f"{folder}: built or changed by rag-jax index, and the run writes its own there; {remedy}")
