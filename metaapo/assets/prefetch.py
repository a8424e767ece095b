"""Fetch everything that an experiment needs into one folder: `snakemake prefetch`, or

    python -m metaapo.assets.prefetch --config config/llama3.1-8b.yaml

Afterwards the whole workflow runs offline.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from metaapo.assets.hub import fetch, of_experiment
from metaapo.config import ConfigError
from metaapo.data import DataError, write_json
from metaapo.experiment import load


def main() -> None:
    """Command line: fetch all assets of one experiment, then write their locations."""
    parser = argparse.ArgumentParser(description="Fetch all checkpoints and datasets that an experiment names.")
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--out", help="write a JSON list of the assets and their locations")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        record = []
        for asset in sorted(
            of_experiment(experiment), key=lambda asset: not asset.is_local
        ):  # what costs nothing first
            print(f"{asset.key}: {asset.path}", file=sys.stderr, flush=True)
            folder = fetch(asset, experiment.assets_dir)
            record.append({"key": asset.key, "path": asset.path, "revision": asset.revision, "place": str(folder)})
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")
    if arguments.out:
        write_json(Path(arguments.out), record)


if __name__ == "__main__":
    main()
