"""Build everything from the scores to the HTML page in one process, since imports take longer than the work.

    python -m reports --config config/default.yaml

Writes scores.csv, assay.json, claims.json, curve.json (if there are several budgets), spec_curve.json, health.json and
report/; each module can also be run on its own.
"""

from __future__ import annotations

import argparse
import sys

from metaapo.config import ConfigError
from metaapo.data import DataError, write_json
from metaapo.experiment import Experiment, load
from reports import assay, claims, collect, curve, drawing, figures, health, page, registration, spec_curve
from reports.runs import Results


def build(experiment: Experiment) -> None:
    """Write all parts of the report from scores and run logs."""
    results = Results(experiment)
    registration.check_scores(experiment)
    collect.collect(experiment)
    results.read_logs()  # before the figures' processes start, which then need not read them again
    early = drawing.save_all(results, figures.BEFORE_CLAIMS, results.folder / "report")
    write_json(results.folder / "assay.json", assay.assay(results))  # before the claims, which read it
    write_json(results.folder / "claims.json", registration.with_deviations(claims.verdicts(results), experiment))
    curve.write(results)
    spec_curve.write(results)
    write_json(results.folder / "health.json", health.record(results))
    page.build(results, early)


def main() -> None:
    """Command line: python -m reports --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    try:
        build(load(parser.parse_args().config))
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
