"""Check that the experiment is fit to compare methods: its trained and scored policies (each world has its own checks).

    python -m reports.health --config config/default.yaml

Writes results/<experiment>/health.json; `reports.health_gate` stops the workflow if a check is out of range. If a plain
method learns nothing, or a policy has collapsed, every comparison is meaningless.
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
KL_RANGE = (0.0, 15.0)  # nats per response of about 15 tokens; above this, samples no longer resemble the SFT policy's
LENGTH_RANGE = (0.5, 2.0)  # times the SFT policy's length; outside this range answers are cut short or padded
MIN_JUDGED = 0.95  # below this share of prompts with a verdict, a score means little


def checks(results: Results) -> list[dict[str, Any]]:
    """All checks, each with name, value, low, high (None: no bound), ok, unit and note."""
    return [*_signal(results), *_drift(results), *_endings(results), *_coverage(results)]


def _signal(results: Results) -> list[dict[str, Any]]:
    """Lower end of the 95 % interval over seeds and prompts of the win rate over the SFT policy; must exceed 0.5."""
    experiment = results.experiment
    pairwise = [b for b in experiment.benchmarks if declaration(b).pairwise and results.baseline(b) == "sft"]
    rows = []
    for benchmark in pairwise[:1]:  # one test per method, not many
        items = results.at_full_budget(results.items(benchmark, experiment.judges[0]))
        items = items[items["iteration"] == experiment.iterations]
        for method in (m for m in roles.modules_that(roles.shows_signal) if m in experiment.methods):
            table = items[items["method"] == method].pivot(index="seed", columns="question", values="value")
            estimate = stats.mean_over_seeds_and_prompts(table.to_numpy())
            sample = f"{estimate.n_seeds} seeds and {estimate.n_prompts} prompts"
            note = f"mean {estimate.value:.3f}; 95 % interval over {sample}"
            name = f"{method} beats SFT on {benchmark}: lower end of its win rate"
            rows.append(check_row(name, estimate.low, CHANCE, None, "share", note))
    return rows


def _drift(results: Results) -> list[dict[str, Any]]:
    """KL and length over all policies; the value furthest out of range of each."""
    frame, probes = results.iterations, results.probes
    rows = []
    if "kl" in frame:
        worst = frame.loc[frame["kl"].idxmax()]
        rows.append(check_row("KL to the SFT policy", worst["kl"], *KL_RANGE, "nats per response", _furthest(worst)))
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
    return f"furthest out of range: {row['method']}, seed {row['seed']}, iteration {row['iteration']}"


def _endings(results: Results) -> list[dict[str, Any]]:
    """Share of each benchmark's answers that end on their own, for the worst method; shown without a bound.

    Small models tend to loop under greedy decoding, which Arena-Hard uses; a low share means that loops, not the
    content of the answers, decide the benchmark.
    """
    answers = results.answers
    if not len(answers):
        return []
    last = results.at_full_budget(answers[answers["iteration"] == results.experiment.iterations])
    ended = 1 - last.groupby(["benchmark", "method"], sort=False)["cut"].mean()
    rows = []
    for benchmark, shares in ended.groupby("benchmark", sort=False):
        method = shares.idxmin()[1]
        rows.append(
            check_row(f"{benchmark}: answers that end", shares.min(), None, None, "share", f"worst method: {method}")
        )
    return rows


def _coverage(results: Results) -> list[dict[str, Any]]:
    """Share of prompts with a usable verdict, for the worst model on each benchmark."""
    frame = results.scores
    shares = (frame["n"] / (frame["n"] + frame["n_failed"])).groupby([frame["benchmark"], frame["judge"]]).min()
    return [
        check_row(
            f"{benchmark}, judge {judge}: verdicts", share, MIN_JUDGED, None, "share of prompts", "for the worst model"
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
