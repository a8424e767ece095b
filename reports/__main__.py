"""Everything from scores to the page in one process, since imports cost more than the work.

    python -m reports --config config/default.yaml

Writes scores.csv, claims.json, health.json and report/; the modules do the same one by one.
"""

from __future__ import annotations

import argparse

from metaapo.config import load
from metaapo.data import write_json
from reports import claims, collect, health, page
from reports.runs import Results


def main() -> None:
    """Command line: python -m reports --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    results = Results(load(parser.parse_args().config))
    collect.collect(results.experiment)
    write_json(results.folder / "claims.json", claims.verdicts(results))
    write_json(results.folder / "health.json", health.record(results))
    page.build(results)


if __name__ == "__main__":
    main()
