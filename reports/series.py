"""A series: one experiment in several cells that differ in a few settings (config/phase.yaml, config/ladder.yaml).

A series' file has these keys: `series`, its name; `experiment`, a configuration without `experiment` and `results_dir`;
`cells`, NAME -> the settings that differ there; and, for a phase diagram, `contrasts`, NAME -> a
`Contrast`; and `held_out`, the cells that are predicted from the others.
Cell NAME is the experiment results/SERIES/NAME, an ordinary one in every respect.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metaapo.config import NAME, ConfigError
from metaapo.data import DataError, read_yaml
from metaapo.experiment import Experiment, resolve, write_resolved


class Contrast(BaseModel):
    """A comparison that is made in every cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    of: str = Field(description="an entry of the methods")
    against: str = Field(description="the entry that it is compared with")
    words: str = Field(description="the comparison in words")
    predict: bool = Field(False, description="predict its sign in the cells that are held out")


class SeriesFile(BaseModel):
    """What a series' file may hold; `read` gives the keys' meanings."""

    model_config = ConfigDict(extra="forbid")
    series: str = Field(pattern=NAME)
    experiment: dict[str, Any]
    cells: dict[str, dict[str, Any]] = Field(min_length=1)
    contrasts: dict[str, Contrast] = {}
    held_out: list[str] = []


@dataclass(frozen=True)
class Series:
    """A series of experiments.

    Attributes:
        name: the folder below results/.
        cells: name -> experiment, in the file's order.
        contrasts: name -> comparison.
        held_out: names of the cells that are predicted from the others.
    """

    name: str
    cells: Mapping[str, Experiment]
    contrasts: Mapping[str, Contrast]
    held_out: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Folder of all cells and of the series' own results."""
        return next(iter(self.cells.values())).results.parent

    @property
    def fitted(self) -> tuple[str, ...]:
        """The cells that are not held out."""
        return tuple(name for name in self.cells if name not in self.held_out)


def read(path: str | Path) -> Series:
    """Read a series' file.

    Raises:
        ConfigError: the file is missing or not as described above, or a cell is no valid experiment.
    """
    try:
        document = SeriesFile.model_validate(read_yaml(path, "a file that describes a series"))
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path}: {key}: {first['msg']}; expected series, experiment, cells, contrasts and held_out"
        ) from error
    unknown = sorted(set(document.held_out) - set(document.cells))
    if unknown:
        raise ConfigError(f"{path}: held_out: {unknown[0]!r} is not among the cells; correct the name or remove it")
    cells = {}
    for name, changes in document.cells.items():
        place = {"experiment": name, "results_dir": f"results/{document.series}"}
        try:
            cells[name] = resolve(merged(document.experiment, changes) | place)
        except ConfigError as error:
            raise ConfigError(f"{path}: cells.{name}: {error}") from error
    for name, contrast in document.contrasts.items():
        for entry in (contrast.of, contrast.against):
            if any(entry not in cell.methods for cell in cells.values()):
                raise ConfigError(
                    f"{path}: contrasts.{name}: {entry!r} is not a method of every cell; add it, or correct it"
                )
    return Series(document.series, cells, document.contrasts, tuple(document.held_out))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with changes; mappings are merged key by key, anything else is replaced."""
    both = dict(base)
    for key, value in changes.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def run(experiments: Iterable[Experiment], at_once: int, options: Sequence[str]) -> None:
    """Run the workflow of each experiment up to its scores; what is finished is not repeated.

    Args:
        experiments: the cells.
        at_once: cells that run at a time, each on one core.
        options: further options of snakemake.

    Raises:
        DataError: a workflow failed; the message names its log.
    """

    def one(experiment: Experiment) -> Path | None:
        log = experiment.results / "snakemake.log"
        config = write_resolved(experiment)
        target = str(experiment.results / "scores.csv")
        command = ["snakemake", "--cores", "1", "--nolock", "--configfile", config, *options, "--", target]
        with log.open("a") as file:
            status = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=file, check=False).returncode
        print(f"{experiment.results}: {'failed' if status else 'finished'}", file=sys.stderr, flush=True)
        return log if status else None

    with ThreadPoolExecutor(at_once) as pool:
        failed = [log for log in pool.map(one, experiments) if log]
    if failed:
        raise DataError(f"{failed[0]}: the workflow failed, see there; afterwards the same command goes on")


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid number of cells; expected 1 or more")
    return count


def arguments(description: str) -> argparse.ArgumentParser:
    """Build the command-line parser of a series' analysis."""
    parser = argparse.ArgumentParser(description=description, epilog="Further options go to snakemake.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="the series' file: run what is missing, then analyse")
    source.add_argument("--kept", type=Path, help="a folder with kept tables: analyse these again, run nothing")
    parser.add_argument(
        "--at-once",
        type=_count,
        default=1,
        help="cells that run at a time, each on one core",
    )
    parser.add_argument("--out", type=Path, help="also keep tables, figure and page in this folder")
    return parser
