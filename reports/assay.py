"""Could this experiment have seen an effect? Assay sensitivity, measured on the experiment itself.

    python -m reports.assay --config config/assay.yaml

Reads scores, logs and aim.csv, and writes assay.json: a list of rows {name, value, ci_low, ci_high, low, high, ok,
unit, note}. `low` and `high` are bounds that the value must keep; `ok` is null where nothing is required. Rows
whose methods or files the experiment lacks are absent. docs/assay.md explains each of them.

The claims read this file: without room for selection, a claim about selection is untestable here (`reports.evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval import stats
from eval.checkpoints import planted_name
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import write_json
from reports import claims, roles
from reports.evidence import MARGINS, POINTS, SMALL_SPREAD, Logs, Table, arm_of
from reports.parts import ALPHA, Part, Verdict, states
from reports.runs import Results

DOSE_FACTOR = 2.0  # the dose-response must be at least this many times the smallest gain that matters
LARGEST_MISSED = 3.0  # points; the primary endpoint must be able to find an effect of this size with 80 % power
MUST_BE_FOUND, MUST_NOT = 3, 0  # planted effects, in points, with a required verdict
SPLITS = 4000  # of the A/A comparison: the share's error from drawing splits is then below 0.3 %
# The share varies from one set of runs to the next. Simulated, with 6 worlds of 7 runs that differ by noise alone (SD
# between runs 0, 1 or 3 points): 95 % of sets have at most 3.3 %, and none of 140 has more than 4 %.
AA_TOLERANCE = 0.015
AA_SEED = 0


@dataclass(frozen=True)
class Row:
    """One property of the experiment; see the module's docstring."""

    name: str
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    low: float | None = None
    high: float | None = None
    ok: bool | None = None
    unit: str = "points"
    note: str = ""

    def record(self) -> dict[str, Any]:
        """The row as it is written, with seven significant digits and null for what is undefined."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    """A value for JSON."""
    if not isinstance(value, float | np.floating):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def assay(results: Results) -> list[dict[str, Any]]:
    """All rows that the experiment has the methods and files for, under the first judge."""
    evidence = Logs(results, results.experiment.judges[0])
    sections: list[Callable[[Results, Logs], Iterator[Row]]] = [
        dose_response,
        rooms,
        planted_effects,
        same_method,
        spread,
        aim,
        detectable,
    ]
    return [row.record() for section in sections for row in section(results, evidence)]


TITLES = {
    "dose_response": "Do annotations help at all, where nothing is selected?",
    "room_selection": "How much could the best choice of prompts gain?",
    "room_weights": "How much could the best weights gain?",
    "planted": "Is a planted effect of {} points seen?",
    "aa_supported": "How often does a method beat itself?",
    "aa_against": "How often does a method lose to itself?",
    "spread_iter": "Does the probability of sampling differ between prompts (iteration {})?",
    "aim_iter": "Does sampling aim at the prompts that gain most (iteration {})?",
    "smallest_effect": "How large must an advantage be to be found?",
}


def title_of(name: str) -> str:
    """A row's question in plain words, for the report."""
    stem, number = name.rstrip("0123456789").removesuffix("_"), name[len(name.rstrip("0123456789")) :]
    return TITLES.get(name) or TITLES[stem].format(number)


# ---------------------------------------------------------------------------------------------------------------------
# Contrasts between arms


def contrast(evidence: Logs, better: str, worse: str) -> Part | None:
    """A contrast on the primary endpoint as the verdicts see it; None if an arm has no scores."""
    benchmark, metric = evidence.endpoint
    table = evidence.contrast(better, worse, benchmark, metric)
    return None if table is None else _part(table, f"{better} - {worse}", benchmark, metric)


def _part(table: Table, label: str, benchmark: str, metric: str) -> Part:
    estimate = stats.mean_over_seeds_and_prompts(table)
    return Part(label, benchmark, metric, claims.UNITS[benchmark], 0.0, MARGINS[benchmark], table, estimate)


def _interval(estimate: stats.Estimate) -> dict[str, float | None]:
    """Value and ends; one seed or world says nothing about others, so it has no ends."""
    if estimate.n_seeds < 2:
        return {"value": estimate.value, "ci_low": None, "ci_high": None}
    return {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}


def dose_response(results: Results, evidence: Logs) -> Iterator[Row]:
    """What annotations are worth where nothing is selected: the largest budget of random mixing less the smallest."""
    name = _mixing(results)
    if name is None:
        return
    budgets = results.experiment.methods[name].budget
    part = contrast(evidence, arm_of(name, max(budgets)), arm_of(name, min(budgets)))
    if part is None or len(budgets) < 2:
        return
    needed = DOSE_FACTOR * part.margin
    ends = _interval(part.estimate)
    ok = ends["ci_low"] is not None and ends["ci_low"] > 0 and part.estimate.value >= needed
    note = (
        f"random mixing at {max(budgets):.0%} of the annotations less at {min(budgets):.0%}; the interval must lie "
        f"above 0, and the gain reach {needed:g} points, twice the smallest that matters"
    )
    yield Row("dose_response", **ends, low=needed, ok=ok, unit=part.unit, note=note)


def rooms(results: Results, evidence: Logs) -> Iterator[Row]:
    """What an oracle gains over random mixing at the same budget: the most that a selector or a weighting could."""
    mixing = _mixing(results)
    if mixing is None:
        return
    for choose, row, what in (
        ("prompts", "room_selection", "selects the prompts"),
        ("weights", "room_weights", "weighs the pairs"),
    ):
        oracle = _oracle(results, choose)
        budget = None if oracle is None else _nearest_budget(results, evidence, (oracle, mixing))
        part = None if budget is None else contrast(evidence, arm_of(oracle, budget), arm_of(mixing, budget))
        if part is not None:
            note = f"an oracle that {what} by gold, less random mixing, both at a budget of {budget:.0%}"
            yield Row(row, **_interval(part.estimate), unit=part.unit, note=note)


def _mixing(results: Results) -> str | None:
    """The entry whose budgets give the dose-response; the A/A comparison's is not meant."""
    experiment = results.experiment
    found = [
        name
        for name in experiment.methods
        if roles.declaration(experiment, name).dose_response and name != experiment.assay.aa
    ]
    return max(found, key=lambda name: len(experiment.methods[name].budget), default=None)


def _oracle(results: Results, choose: str) -> str | None:
    """The first entry that knows gold and decides `choose` by it."""
    experiment = results.experiment
    return next(
        (
            name
            for name, entry in experiment.methods.items()
            if roles.declaration(experiment, name).reads_gold and entry.model_dump().get("choose") == choose
        ),
        None,
    )


def _nearest_budget(results: Results, evidence: Logs, entries: Sequence[str]) -> float | None:
    """The budget that all entries have and that is nearest to what the method under test annotates.

    Without a method under test, the smallest; None if they have none in common.
    """
    common = set.intersection(*(set(results.experiment.methods[name].budget) for name in entries))
    tested = _tested(results)
    target = evidence.budget(tested) if tested else 0.0
    return min(sorted(common), key=lambda budget: abs(budget - target), default=None)


def _tested(results: Results) -> str | None:
    """The entry of the method under test."""
    return roles.first_that(results.experiment, lambda declared: declared.role == "method")


# ---------------------------------------------------------------------------------------------------------------------
# Planted effects and A/A


def planted_effects(results: Results, evidence: Logs) -> Iterator[Row]:
    """What the verdicts make of effects whose size is known."""
    planted, experiment = results.experiment.assay.planted, results.experiment
    if not planted.of:
        return
    budget = max(experiment.methods[planted.of].budget)
    for points in planted.points:
        part = contrast(evidence, arm_of(planted_name(points), budget), arm_of(planted.of, budget))
        if part is None:
            continue
        (verdict,) = states([part])
        required = {MUST_BE_FOUND: verdict == "supported", MUST_NOT: verdict != "supported"}
        note = f"{verdict}: a true effect of {points:g} points over {planted.of}, judged like any other method"
        if points in required:
            note += f"; must {'not ' if points == MUST_NOT else ''}be supported"
        yield Row(planted_name(points), **_interval(part.estimate), ok=required.get(points), unit=part.unit, note=note)


def same_method(results: Results, evidence: Logs) -> Iterator[Row]:
    """How often a method beats itself: shares of A/A splits that are "supported" and "worse"."""
    name = results.experiment.assay.aa
    if not name:
        return
    runs = runs_by_world(results, evidence, name)
    if min(map(len, runs)) < 2:
        return
    benchmark, metric = evidence.endpoint

    def judge(table: Table) -> Verdict:
        return states([_part(table, "A - B", benchmark, metric)])[0]

    pairs = random_splits([len(of) for of in runs], SPLITS, np.random.default_rng(AA_SEED))
    verdicts = [judge(np.array([of[a] - of[b] for of, (a, b) in zip(runs, split)])) for split in pairs]
    n_runs, high = sum(map(len, runs)), ALPHA + AA_TOLERANCE
    for row, verdict, words in (("aa_supported", "supported", "better"), ("aa_against", "worse", "worse")):
        found = np.array([of == verdict for of in verdicts])
        low, top = share_interval(found, pairs)
        share = float(found.mean())
        note = (
            f"share of {SPLITS} random splits of {n_runs} runs of one method ({name}) in which it comes out {words} "
            f"than itself; at most {ALPHA:.1%} expected, with a tolerance of {AA_TOLERANCE:.1%} for so few runs; the "
            "interval counts runs, not splits, which share them"
        )
        yield Row(row, share, low, top, high=high, ok=share <= high, unit="share", note=note)


def runs_by_world(results: Results, evidence: Logs, name: str) -> list[NDArray[np.float64]]:
    """For each world, the values of a method's runs on the primary endpoint, (runs, questions), in its unit."""
    experiment, benchmark = results.experiment, evidence.endpoint[0]
    items = results.items(benchmark, evidence.judge)
    is_last = items["iteration"] == experiment.iterations
    items = items[(items["method"] == name) & (items["budget"] == str(max(experiment.methods[name].budget))) & is_last]
    frame = items.pivot(index="seed", columns="question", values="value").dropna(axis=1)
    worlds = np.array([experiment.world_of(int(seed)) for seed in frame.index])
    values = frame.to_numpy() * POINTS[benchmark]
    return [values[worlds == world] for world in dict.fromkeys(worlds)]


def random_splits(sizes: Sequence[int], splits: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Two different runs, A and B, of every world in each split: (splits, worlds, 2), indices of runs within a world.

    Args:
        sizes: number of runs of each world, at least 2.
        splits: number of splits.
        rng: random stream.
    """
    first = np.array([rng.integers(n, size=splits) for n in sizes])
    step = np.array([rng.integers(1, n, size=splits) for n in sizes])
    return np.stack([first, (first + step) % np.array(sizes)[:, None]], axis=-1).transpose(1, 0, 2)


def share_interval(found: NDArray[np.bool_], pairs: NDArray[np.int64]) -> tuple[float, float]:
    """A 95 % interval of the share of splits with an outcome, if splits share runs.

    The share is a U-statistic of the runs. Its variance is the jackknife's, which leaves out each run in turn; Wilson's
    interval is then that of as many independent splits as would have this variance, at least half as many as there are
    runs and at most as many as were drawn.

    Args:
        found: (splits,), whether a split has the outcome.
        pairs: (splits, worlds, 2), the runs that it compares.

    Source: Arvesen, "Jackknifing U-statistics", Annals of Mathematical Statistics 40 (1969); Wilson, JASA 22 (1927).
    """
    share, variance, n_runs = float(found.mean()), 0.0, 0
    for world in range(pairs.shape[1]):
        n = int(pairs[:, world].max()) + 1
        n_runs += n
        if n > 2:  # of two runs, every split holds both
            without = np.array([found[(pairs[:, world] != run).all(axis=1)].mean() for run in range(n)])
            variance += (n - 1) / n * float(((without - without.mean()) ** 2).sum())
    size = share * (1 - share) / variance if variance > 0 else 0.0
    return wilson(share, min(max(size, n_runs / 2), len(found)))


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among n independent trials; n need not be whole."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


# ---------------------------------------------------------------------------------------------------------------------
# The method under test's selection


def spread(results: Results, evidence: Logs) -> Iterator[Row]:
    """How much the probability of sampling differs between prompts, in each iteration."""
    name = _tested(results)
    if name is None:
        return
    frame = results.at_full_budget(results.annotations)
    frame = frame[frame["method"] == name]
    for iteration, rows in frame.groupby("iteration"):
        deviations = {seed: of["sample_probability"].std(ddof=0) for seed, of in rows.groupby("seed")}
        estimate = stats.mean_over_seeds(_over_worlds(results, deviations))
        note = f"standard deviation of P(sample) over prompts; below {SMALL_SPREAD}, selection is random in effect"
        yield Row(f"spread_iter{iteration}", **_interval(estimate), unit="probability", note=note)


def aim(results: Results, evidence: Logs) -> Iterator[Row]:
    """Rank correlation of the probability of sampling with what sampling is worth by gold, in each iteration."""
    name, path = _tested(results), results.folder / "aim.csv"
    if name is None or not path.exists():
        return
    frame = results.at_full_budget(pd.read_csv(path, dtype={"budget": str, "id": str}, float_precision="round_trip"))
    frame = frame[frame["method"] == name]
    for iteration, rows in frame.groupby("iteration"):
        found = {seed: rank_correlation(of["p_sample"], of["gain"]) for seed, of in rows.groupby("seed")}
        known = {seed: value for seed, value in found.items() if value is not None}
        if not known:
            note = "P(sample) is the same for every prompt, so it cannot point to any"
            yield Row(f"aim_iter{iteration}", None, unit="rank correlation", note=note)
            continue
        estimate = stats.mean_over_seeds(_over_worlds(results, known))
        note = (
            "Spearman's rank correlation of P(sample) with what the online pair gains by gold, "
            f"{len(rows) // len(found)} prompts in each of {len(known)} runs; above 0, prompts that gain more are "
            "sampled more often"
        )
        ends = {key: None if end is None else float(np.clip(end, -1, 1)) for key, end in _interval(estimate).items()}
        yield Row(f"aim_iter{iteration}", **ends, unit="rank correlation", note=note)


def rank_correlation(x: pd.Series, y: pd.Series) -> float | None:
    """Spearman's rho with mean ranks for ties, -1 to 1; None if x or y is constant."""
    ranks = np.array([x.rank(), y.rank()])
    if (np.ptp(ranks, axis=1) == 0).any():
        return None
    return float(np.corrcoef(ranks)[0, 1])


def _over_worlds(results: Results, by_seed: dict[int, float]) -> list[float]:
    """One value per world if there are several, since seeds that share a world are not independent; else per seed."""
    experiment = results.experiment
    if len(experiment.world.seeds) == 1:
        return list(by_seed.values())
    worlds: dict[int, list[float]] = {}
    for seed, value in by_seed.items():
        worlds.setdefault(experiment.world_of(int(seed)), []).append(value)
    return [float(np.mean(values)) for values in worlds.values()]


# ---------------------------------------------------------------------------------------------------------------------
# Power


def detectable(results: Results, evidence: Logs) -> Iterator[Row]:
    """The smallest true advantage over every baseline that the first claim's primary endpoint would find."""
    first = claims.CLAIMS[0]
    part = claims.smallest_effect([part for part in claims.estimate_parts(first, evidence) if part.decides])
    if part is None:
        return
    value, limited = part.smallest_effect, part.unit == "points"
    note = f"true advantage found with 80 % power, largest over the baselines of {first.id} ({part.label})"
    high = LARGEST_MISSED if limited else None
    yield Row("smallest_effect", value, high=high, ok=value <= high if limited else None, unit=part.unit, note=note)


def main() -> None:
    """Command line: write assay.json."""
    parser = experiment_arguments("Measure what the experiment could have seen.")
    with errors_in_one_sentence():
        results = Results.load(parser.parse_args().config)
        write_json(results.folder / "assay.json", assay(results))


if __name__ == "__main__":
    main()
