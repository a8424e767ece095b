"""Is the experiment fit to compare methods? Checks that need trained and scored policies; the world's own are its health.json.

    python -m reports.health --config config/default.yaml             write results/<experiment>/health.json
    python -m reports.health --config config/default.yaml --enforce   fail where a check of it or of a world is out of range

A plain method that learns nothing, or a policy that has collapsed, makes every comparison meaningless.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from eval import stats
from metaapo.config import load
from metaapo.data import write_json, write_text
from reports.runs import Results

SIGNAL = (
    "dpo",
    "online_dpo",
)  # the methods that must show that there is something to learn; never the method under test
CHANCE = 0.5
KL_RANGE = (0.0, 15.0)  # nats, per response of some 15 tokens: beyond it samples no longer resemble the SFT policy's
LENGTH_RANGE = (0.5, 2.0)  # times the SFT policy's length: beyond it answers are cut short or padded
MIN_JUDGED = 0.95  # share of prompts with a verdict below which a score says little


def checks(results: Results) -> list[dict[str, Any]]:
    """All checks: name, value, low, high (None: no bound), ok."""
    return [*_signal(results), *_drift(results), *_coverage(results)]


def _check(name: str, value: float, low: float | None, high: float | None) -> dict[str, Any]:
    value = float(value)
    ok = (low is None or value >= low) and (high is None or value <= high)
    return {"name": name, "value": round(value, 4), "low": low, "high": high, "ok": ok}


def _signal(results: Results) -> list[dict[str, Any]]:
    """Lower end of the 95 % interval, over seeds and prompts, of the win rate over the SFT policy: above one half."""
    experiment = results.experiment
    rows = []
    for benchmark in (b for b in ("alpacaeval2", "arenahard") if b in experiment.benchmarks):
        items = results.natural(results.items(benchmark, experiment.judges[0]))
        items = items[items["iteration"] == experiment.iterations]
        for method in (m for m in SIGNAL if m in experiment.methods):
            table = items[items["method"] == method].pivot(index="seed", columns="question", values="value")
            estimate = stats.mean_over_seeds_and_prompts(table.to_numpy())
            name = f"{method} over SFT on {benchmark}: lower end of win rate"
            rows.append(_check(name, estimate.low, CHANCE, None))
    return rows


def _drift(results: Results) -> list[dict[str, Any]]:
    """KL and length of every method's policies: the most extreme seed and iteration counts."""
    frame, probes = results.iterations, results.probes
    rows = []
    start = probes[(probes["iteration"] == 1) & (probes["step"] == 0)]["tokens"].mean() if len(probes) else None
    for method, own in frame.groupby("method", sort=False):
        if "kl" in own:
            rows.append(_check(f"{method}: largest KL to SFT, nats", own["kl"].max(), *KL_RANGE))
        if "mean_length" in own and start:
            ratios = own["mean_length"] / start
            furthest = ratios.loc[(ratios - 1).abs().idxmax()]
            rows.append(_check(f"{method}: length relative to SFT, furthest from 1", furthest, *LENGTH_RANGE))
    return rows


def _coverage(results: Results) -> list[dict[str, Any]]:
    """Share of prompts with a usable verdict, the worst model of each benchmark."""
    frame = results.scores
    shares = (frame["n"] / (frame["n"] + frame["n_failed"])).groupby([frame["benchmark"], frame["judge"]]).min()
    return [
        _check(f"{benchmark}, judge {judge}: smallest share of prompts judged", share, MIN_JUDGED, None)
        for (benchmark, judge), share in shares.items()
    ]


def failures(documents: list[dict[str, Any]]) -> list[str]:
    """Names and values of the checks that are out of range, over all health records."""
    rows = [row for document in documents for row in _rows(document.get("checks", [])) if row.get("ok") is False]
    return [f"{row.get('name')}: {row.get('value')}, expected {row.get('low')} to {row.get('high')}" for row in rows]


def _rows(found: Any) -> list[dict[str, Any]]:
    """Checks as a list, where a record may also map names to them."""
    if isinstance(found, dict):
        return [{"name": name} | row for name, row in found.items() if isinstance(row, dict)]
    return [row for row in found if isinstance(row, dict)]


def main() -> None:
    """Command line: python -m reports.health --config FILE [--enforce]."""
    parser = argparse.ArgumentParser(prog="python -m reports.health", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    parser.add_argument("--enforce", action="store_true", help="write health.ok, or fail, by what is on disk")
    args = parser.parse_args()
    results = Results(load(args.config))
    if not args.enforce:
        found = checks(results)
        record = {"experiment": results.experiment.experiment, "ok": all(row["ok"] for row in found), "checks": found}
        write_json(results.folder / "health.json", record)
        return
    wrong = failures(results.world_health())
    if wrong and results.experiment.health.enforce:
        sys.exit(
            "the experiment is not healthy, so its comparisons mean little: "
            + "; ".join(wrong)
            + "; see the report's health "
            "table, then change the world or the training, or set health.enforce to false to accept it"
        )
    write_text(results.folder / "health.ok", "\n".join(wrong or ["all checks are in range"]) + "\n")


if __name__ == "__main__":
    main()
