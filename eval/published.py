"""Published numbers, the files behind them, and the comparison with our own scores.

A benchmark's `published.py` names both; `eval.verify` prints them side by side. The files belong to others and are not
part of the project: they lie in a folder that the caller names, or are fetched at pinned commits and checked by hash.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaapo.data import DataError, read_records, sha256_file, write_bytes

TIMEOUT = 60.0  # seconds without a byte from a server
ROUNDING = 1e-9  # 7.035 - 7.03 is more than 0.005 in binary


@dataclass(frozen=True)
class Source:
    """A published file.

    Attributes:
        name: where it lies in a folder of published files.
        url: where it is fetched from, at a fixed commit.
        sha256: of the fetched file.
        alternatives: other names under which a given folder may hold the same content, such as an extract.
    """

    name: str
    url: str
    sha256: str
    alternatives: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """A published number beside ours.

    Attributes:
        model: its model.
        metric: its name upstream.
        published: as published.
        ours: None if our scorer gives no number.
        tolerance: the largest difference that the published digits allow.
    """

    model: str
    metric: str
    published: float
    ours: float | None
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Our number is the published one, up to the published digits."""
        return self.ours is not None and abs(self.ours - self.published) <= self.tolerance + ROUNDING


@dataclass
class PublishedFiles:
    """A folder of published files.

    Attributes:
        folder: its path.
        fetch: fetch what is missing, and check the hash of every file.
        fetched: the addresses fetched so far.
    """

    folder: Path
    fetch: bool = False
    fetched: list[str] = field(default_factory=list)

    def path(self, source: Source) -> Path:
        """The path of a published file.

        Raises:
            DataError: it is missing, cannot be fetched, or has another hash than the published one.
        """
        if self.fetch:
            return self._fetched(source)
        names = (source.name, *source.alternatives)
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise DataError(
            f"{self.folder}: no published file {' or '.join(names)}; leave out --data to fetch it from {source.url}"
        )

    def records(self, source: Source) -> list[dict[str, Any]]:
        """The records of a published file; raises DataError like `path`, and if they cannot be read."""
        return read_records(self.path(source))

    def _fetched(self, source: Source) -> Path:
        path = self.folder / source.name
        if path.is_file() and sha256_file(path) == source.sha256:
            return path
        content = _download(source.url)
        found = hashlib.sha256(content).hexdigest()
        if found != source.sha256:
            raise DataError(
                f"{source.url}: its SHA-256 is {found}; expected {source.sha256}; the file is not the published one, "
                "so nothing was scored"
            )
        write_bytes(path, content)
        self.fetched.append(source.url)
        return path


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 (addresses are constants)
            return answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise DataError(
            f"{url}: could not be fetched ({error}); if you have the published files, name their folder with --data"
        ) from error


def cache_folder() -> Path:
    """Where fetched files are kept: metaapo/published in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaapo" / "published"
