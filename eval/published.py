"""Published numbers, the files behind them, and the comparison with our own scores.

A benchmark's `published.py` names both; `eval.verify` prints them side by side. The files belong to others and are not
part of the project: they lie in a folder that the caller names, or are fetched at pinned commits and checked by hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from metaapo.data import DataError, read_records

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
    """

    folder: Path
    fetch: bool = False

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
        try:
            downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
            return Path(pooch.retrieve(source.url, source.sha256, source.name, self.folder, downloader=downloader))
        except OSError as error:
            raise DataError(
                f"{source.url}: could not be fetched ({error}); if you have the published files, name their folder "
                "with --data"
            ) from error
        except ValueError as error:  # another hash
            raise DataError(f"{source.url}: not the published file, so nothing was scored ({error})") from error


def cache_folder() -> Path:
    """Where fetched files are kept: in the user's cache, on Linux ~/.cache/metaapo/published."""
    return pooch.os_cache("metaapo") / "published"
