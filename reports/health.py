"""Is the experiment fit to compare methods? Checks of trained and scored policies; a world's own are made with it.

    python -m reports.health --config config/default.yaml

Writes results/<experiment>/health.json; `reports.health_gate` stops the workflow where a check is out of range. A plain
method that learns nothing, or a policy that has collapsed, makes every comparison meaningless.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from eval import stats
from eval.benchmark import benchmark as declaration
from metaapo.data import check_row, write_json
from reports import roles
from reports.runs import Results

CHANCE = 0.5
KL_RANGE = (0.0, 15.0)  # nats, per response of some 15 tokens: beyond it samples no longer resemble the SFT policy's
LENGTH_RANGE = (0.5, 2.0)  # times the SFT policy's length: beyond it answers are cut short or padded
MIN_JUDGED = 0.95  # share of prompts with a verdict below which a score says little


def checks(results: Results) -> list[dict[str, Any]]:
    """All checks: name, value, low, high (None: no bound), ok, unit, note."""
    return [*_signal(results), *_drift(results), *_endings(results), *_coverage(results)]


def _signal(results: Results) -> list[dict[str, Any]]:
    """Lower end of the 95 % interval, over seeds and prompts, of the win rate over the SFT policy: above one half."""
    experiment = results.experiment
    pairwise = [b for b in experiment.benchmarks if declaration(b).pairwise and results.baseline(b) == "sft"]
    rows = []
    for benchmark in pairwise[:1]:  # one test per method, not many
        items = results.at_full_budget(results.items(benchmark, experiment.judges[0]))
        items = items[items["iteration"] == experiment.iterations]
        for method in (m for m in roles.modules_that(roles.shows_signal) if m in experiment.methods):
            table = items[items["method"] == method].pivot(index="seed", columns="question", values="value")
            estimate = stats.mean_over_seeds_and_prompts(table.to_numpy())
            witnesses = f"{estimate.n_seeds} seeds and {estimate.n_prompts} prompts"
            note = f"mean {estimate.value:.3f}; 95 % interval over {witnesses}"
            name = f"{method} beats SFT on {benchmark}: lower end of its win rate"
            rows.append(check_row(name, estimate.low, CHANCE, None, "share", note))
    return rows


def _drift(results: Results) -> list[dict[str, Any]]:
    """KL and length of all policies; of each the value that is furthest off."""
    frame, probes = results.iterations, results.probes
    rows = []
    if "kl" in frame:
        worst = frame.loc[frame["kl"].idxmax()]
        rows.append(check_row("KL to the SFT policy", worst["kl"], *KL_RANGE, "nats a response", _furthest(worst)))
    start = probes[(probes["iteration"] == 1) & (probes["step"] == 0)]["tokens"].mean() if len(probes) else None
    if start and "mean_length" in frame:
        ratio = frame["mean_length"] / start
        furthest = np.log(ratio.clip(lower=1e-9)).abs().idxmax()
        rows.append(
            check_row(
                "response length",
                ratio[furthest],
                *LENGTH_RANGE,
                "times the SFT policy's",
                _furthest(frame.loc[furthest]),
            )
        )
    return rows


def _furthest(row: Any) -> str:
    return f"furthest off: {row['method']}, seed {row['seed']}, iteration {row['iteration']}"


def _endings(results: Results) -> list[dict[str, Any]]:
    """Share of each benchmark's answers that end by themselves, of the worst method; shown, without a bound.

    Small models fall into loops where they answer greedily, as Arena-Hard asks; a low share says that this, and not
    the content of answers, decides the benchmark.
    """
    answers = results.answers
    if not len(answers):
        return []
    last = results.at_full_budget(answers[answers["iteration"] == results.experiment.iterations])
    ended = 1 - last.groupby(["benchmark", "method"], sort=False)["cut"].mean()
    rows = []
    for benchmark, own in ended.groupby("benchmark", sort=False):
        method = own.idxmin()[1]
        rows.append(
            check_row(f"{benchmark}: answers that end", own.min(), None, None, "share", f"worst method: {method}")
        )
    return rows


def _coverage(results: Results) -> list[dict[str, Any]]:
    """Share of prompts with a usable verdict, the worst model of each benchmark."""
    frame = results.scores
    shares = (frame["n"] / (frame["n"] + frame["n_failed"])).groupby([frame["benchmark"], frame["judge"]]).min()
    return [
        check_row(
            f"{benchmark}, judge {judge}: verdicts", share, MIN_JUDGED, None, "share of prompts", "of the worst model"
        )
        for (benchmark, judge), share in shares.items()
    ]


def record(results: Results) -> dict[str, Any]:
    """The content of health.json."""
    found = checks(results)
    return {"experiment": results.experiment.experiment, "ok": all(row["ok"] for row in found), "checks": found}


def main() -> None:
    """Command line: python -m reports.health --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.health", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    results = Results.load(parser.parse_args().config)
    write_json(results.folder / "health.json", record(results))


if __name__ == "__main__":
    main()
