"""Wall time per rule in seconds, from Snakemake's benchmark files.

python -m reports.timings results/default
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def rule_seconds(results: Path) -> list[dict[str, float | int | str]]:
    """Sum up each rule's benchmark files.

    Args:
        results: an experiment's folder; its benchmarks/{rule}/*.tsv are read.

    Returns:
        {rule, jobs, seconds (wall, summed over jobs), longest (seconds), max_rss_mb}, the largest sum first.
    """
    rows = []
    for folder in sorted((results / "benchmarks").glob("*")):
        jobs = []
        for path in folder.rglob("*.tsv"):
            with path.open(encoding="utf-8") as file:
                jobs += list(csv.DictReader(file, delimiter="\t"))
        seconds = [float(job["s"]) for job in jobs]
        memory = [float(job["max_rss"]) for job in jobs if job["max_rss"] not in ("-", "NA")]
        if seconds:
            rows.append(
                {
                    "rule": folder.name,
                    "jobs": len(seconds),
                    "seconds": round(sum(seconds), 1),
                    "longest": round(max(seconds), 1),
                    "max_rss_mb": round(max(memory, default=0)),
                }
            )
    return sorted(rows, key=lambda row: -float(row["seconds"]))


def main() -> None:
    """Print the table and the path of the report."""
    results = Path(sys.argv[1])
    print(f"{'rule':24} {'jobs':>5} {'seconds':>9} {'longest':>9} {'MB':>6}")
    for row in rule_seconds(results):
        print(f"{row['rule']:24} {row['jobs']:5d} {row['seconds']:9.1f} {row['longest']:9.1f} {row['max_rss_mb']:6d}")
    report = results / "report" / "index.html"
    if report.is_file():
        print(f"report: {report}")


if __name__ == "__main__":
    main()
