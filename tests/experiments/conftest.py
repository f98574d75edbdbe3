"""What the tests of experiments share."""

import pytest

import experiment_files
from experiment_files import Files
from rag_jax.config.config import Config


@pytest.fixture(scope="module")
def files(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of the experiments on the small world, and a workdir whose runs the tests of a module share."""
    return experiment_files.write(towns, tmp_path_factory.mktemp("small"))
