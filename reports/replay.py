"""Rebuild scores, verdicts, figures, tables and the page from stored answers and judgments, without GPU, model or API.

    python -m reports.replay pack --config config/default.yaml --out stored/default
    python -m reports.replay run --from stored/default [--out results/replay]

The stored form is the results tree itself with each file gzipped, without weights and anything that can be recomputed:
config.yaml, answers/, judgments/, each run's run.json and iteration logs, each world's questions, pairs and health, and
stored.json with the hashes of scores.csv and claims.json. A results folder can be used as a stored form directly.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from metaapo.config import ConfigError
from metaapo.data import DataError, read_json, sha256_file, write_bytes, write_json
from metaapo.experiment import Experiment, load, write_resolved

# Patterns, relative to the results tree, of the files that cannot be recomputed.
STORED = (
    "config.yaml",
    "plan.lock*",
    "answers/**/*",
    "judgments/**/*",
    "runs/**/run.json*",
    "runs/**/iter*/*.json*",
    "world*/health.json*",
    "agreement/*.json*",
    "assay.json*",
    "world*/data/manifest.json*",
    "world*/data/pairs.jsonl*",
    "world*/data/eval/*",
    "aim.csv*",
    "planted.json*",
    "benchmarks/**/*.tsv*",
)
COMPUTED = ("scores.csv", "claims.json")
RECORD = "stored.json"


def stored_files(folder: Path) -> list[Path]:
    """Files of a results tree or stored form that belong in the stored form, as relative paths in a fixed order.

    Raises:
        DataError: the folder has no configuration or no judgments.
    """
    found = {path for pattern in STORED for path in folder.glob(pattern) if path.is_file()}
    files = sorted(path.relative_to(folder) for path in found if not path.name.startswith("."))
    for needed in ("config.yaml", "answers", "judgments", "runs"):
        if not any(file.parts[0].removesuffix(".gz") == needed for file in files):
            raise DataError(f"{folder}: {needed} not found; expected a results folder, or one written by `pack`")
    return files


def pack(experiment: Experiment, out: Path) -> int:
    """Write the stored form of an experiment; returns its size in bytes.

    Raises:
        DataError: the experiment has not finished.
    """
    results = experiment.results
    size = 0
    for file in stored_files(results):
        content = _stored_config(experiment) if file.name == "config.yaml" else (results / file).read_bytes()
        if file.name != "config.yaml":
            content, file = gzip.compress(content, mtime=0), file.with_name(f"{file.name}.gz")
        write_bytes(out / file, content)
        size += len(content)
    hashes = {name: sha256_file(results / name) for name in COMPUTED if (results / name).exists()}
    write_json(out / RECORD, {"experiment": experiment.experiment, "sha256": hashes})
    return size


def _stored_config(experiment: Experiment) -> bytes:
    """The configuration without settings that matter only for running models, whose keys may change between
    versions."""
    plain = {key: value for key, value in experiment.dump().items() if key not in ("hardware", "assets_dir")}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()


def unpack(source: Path, out: Path) -> Experiment:
    """Unpack a stored form into a results tree below `out`; returns the experiment with these results.

    Raises:
        ConfigError: the stored configuration is not valid.
        DataError: the folder is not a stored form.
    """
    experiment = load(source / "config.yaml").model_copy(update={"results_dir": str(out)})
    if experiment.results.resolve() == source.resolve():
        raise DataError(f"{source}: a replay would overwrite its input; choose another folder with --out")
    for file in stored_files(source):
        content = (source / file).read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        if file.name != "config.yaml":
            write_bytes(experiment.results / file.with_name(file.name.removesuffix(".gz")), content)
    write_resolved(experiment)
    return experiment


def replay(source: Path, out: Path) -> dict[str, bool]:
    """Score, collect, decide and draw; returns for each computed file whether it equals the stored experiment's."""
    from eval.grade import grade
    from eval.score import score_benchmark
    from reports.__main__ import build

    experiment = unpack(source, out)
    for benchmark in experiment.benchmarks:
        for judge in experiment.judges:
            score_benchmark(experiment, benchmark, judge)
    grade(experiment)
    build(experiment)
    return {name: sha256_file(experiment.results / name) == digest for name, digest in expected(source).items()}


def expected(source: Path) -> dict[str, str]:
    """SHA-256 of the computed files when they were stored; empty if unknown."""
    if (source / RECORD).exists():
        return read_json(source / RECORD)["sha256"]
    return {name: sha256_file(source / name) for name in COMPUTED if (source / name).exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: pack an experiment, or replay one."""
    parser = argparse.ArgumentParser(prog="python -m reports.replay", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="store an experiment compactly")
    packing.add_argument("--config", required=True, help="configuration file of the experiment")
    packing.add_argument("--out", required=True, type=Path, help="folder to write")
    running = commands.add_parser("run", help="rebuild the report from a stored experiment")
    running.add_argument("--from", dest="source", required=True, help="stored form or results folder")
    running.add_argument("--out", type=Path, default=Path("results/replay"), help="folder above the experiment's")
    args = parser.parse_args(arguments)
    try:
        if args.command == "pack":
            size = pack(load(args.config), args.out)
            print(f"{args.out}: {size / 1e6:.1f} MB")
            return
        if not args.source:
            sys.exit("error: no stored experiment is given; run snakemake replay --config from=<folder>")
        same = replay(Path(args.source), args.out)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")
    for name, identical in same.items():
        print(f"{name}: {'identical to' if identical else 'DIFFERS from'} the stored experiment's")


if __name__ == "__main__":
    main()
