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
from metaapo.data import check_row, read_json, write_json
from metaapo.experiment import SFT, Experiment
from metaapo.method import module_of
from reports import roles
from reports.runs import Results

CHANCE = 0.5
# Bounds for small worlds, whose answers have about 12 tokens; elsewhere the values are shown without bounds.
# Nats per response after the last iteration: below, little was learned; above, samples drift away.
KL_RANGE = (1.0, 5.0)
MAX_CUT_SFT, MAX_CUT = 0.01, 0.03  # share of cut answers, mean over worlds; above, loops and not contents decide
MIN_AGREEMENT = 0.75  # of reward model and gold on a trained policy's samples; below, training follows its errors
LENGTH_RANGE = (0.5, 2.0)  # times the SFT policy's length; outside this range answers are cut short or padded
MIN_JUDGED = 0.95  # below this share of prompts with a verdict, a score means little


def checks(results: Results) -> list[dict[str, Any]]:
    """All checks, each with name, value, low, high (None: no bound), ok, unit and note."""
    return [*_signal(results), *_drift(results), *_cuts(results), *_agreement(results), *_coverage(results)]


def _bounded(results: Results) -> bool:
    """Whether the bounds for small worlds apply."""
    return results.experiment.world.name == "tiny"


def tuned(experiment: Experiment) -> list[str]:
    """The methods that were tuned for the main comparison: baselines and MetaAPO, not its variants and controls."""
    entries = experiment.methods.items()
    roles_of = {name: entry.role or roles.declaration(experiment, name).role for name, entry in entries}
    variants = {n for n, m in entries if n != "metaapo" and module_of(n, m) == "metaapo.metaapo"}
    return [name for name, role in roles_of.items() if role in ("baseline", "method") and name not in variants]


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
    """KL of the tuned methods at the end, mean over seeds, and length over all policies: the value furthest out."""
    frame, probes = results.iterations, results.probes
    rows = []
    last = results.at_full_budget(frame[frame["iteration"] == results.experiment.iterations])
    last = last[last["method"].isin(tuned(results.experiment))]
    if "kl" in last and last["kl"].notna().any():
        means = last.groupby("method", sort=False)["kl"].mean()
        low, high = KL_RANGE if _bounded(results) else (None, None)
        for word, value, method in (("lowest", means.min(), means.idxmin()), ("highest", means.max(), means.idxmax())):
            name = f"KL to the SFT policy after the last iteration, {word} of the tuned methods"
            rows.append(check_row(name, value, low, high, "nats per response", f"{method}, mean over seeds"))
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


def _cuts(results: Results) -> list[dict[str, Any]]:
    """Share of each benchmark's answers that reached the length limit: of the SFT policies, and of the worst method.

    Small models tend to loop, above all under greedy decoding, which Arena-Hard uses.
    """
    rows = []
    for benchmark, answers in results.answers.groupby("benchmark", sort=False):
        sft = answers[answers["method"] == SFT]["cut"]
        last = results.at_full_budget(answers[answers["iteration"] == results.experiment.iterations])
        shares = last[last["method"] != SFT].groupby("method", sort=False)["cut"].mean()
        bounds = (MAX_CUT_SFT, MAX_CUT) if _bounded(results) else (None, None)
        unit = "share of answers"
        if len(sft):
            rows.append(
                check_row(f"{benchmark}: cut answers of SFT", sft.mean(), None, bounds[0], unit, "mean of worlds")
            )
        if len(shares):
            note = f"worst method: {shares.idxmax()}, mean over seeds"
            rows.append(check_row(f"{benchmark}: cut answers", shares.max(), None, bounds[1], unit, note))
    return rows


def _agreement(results: Results) -> list[dict[str, Any]]:
    """How often the reward model agrees with gold at the end of the plain methods (`eval.agreement_on_policy`)."""
    rows = []
    for method in results.experiment.methods:
        path = results.folder / "agreement" / f"{method}.json"
        document = read_json(path) if path.exists() else {"runs": []}
        shares = [run["agreement"] for run in document["runs"]]
        if shares:
            name = f"reward model agrees with gold at the end of {method}"
            note = f"mean of {len(shares)} runs, lowest {min(shares):.3f}; {document['prompts']} prompts x "
            note += f"{document['samples']} samples each"
            rows.append(check_row(name, float(np.mean(shares)), MIN_AGREEMENT, None, "share of pairs", note))
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
