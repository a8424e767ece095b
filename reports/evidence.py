"""The evidence for verdicts: differences between methods and quantities from run logs, as (seeds, prompts) tables.

`Evidence` is the interface that `reports.claims` uses; `Logs` implements it with scores and run logs on disk.

An *arm* is what a contrast compares: an entry of the configuration at its largest budget, or at another one, written
"entry@0.5".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.benchmark import benchmarks
from metaapo.data import read_json
from metaapo.experiment import SFT, Experiment
from metaapo.method import module_of
from reports import roles
from reports.collect import responses_per_prompt
from reports.runs import Results

# (seeds, prompts) of differences or measures; worlds instead of seeds if there are several
Table = NDArray[np.float64]

BENCHMARKS = benchmarks()
RAW = {name: found.raw_metric for name, found in BENCHMARKS.items()}  # the metric that the items average to
POINTS = {name: found.item_scale for name, found in BENCHMARKS.items()}  # unit of the scores per unit of the items
OVERALL = ("overall", "score")  # mean of the benchmarks, each on 0 to 100; all prompts of a benchmark have equal weight
MARGINS = {name: found.margin for name, found in BENCHMARKS.items()} | {OVERALL[0]: 1.0}
SMALL_SPREAD = 0.05  # standard deviation of P(sample) over prompts, below which selection is random in effect

# Roles that one entry of the experiment can have, as its module declares.
FULL_BUDGET = "role: full budget"
MATCHED_RANDOM = "role: matched random"
PARTS = {FULL_BUDGET: roles.full_budget, MATCHED_RANDOM: roles.matched_random}
# MetaAPO with one component removed: any entry of the configuration that uses the module metaapo and differs from the
# entry `metaapo` in this key alone, whatever its name.
VARIANT_KEYS = ("map", "select", "weights")


class Evidence(Protocol):
    """Source of the numbers: results on disk, or synthetic data in tests."""

    methods: Mapping[str, str]
    """Entry of the configuration for each method name, role and variant that the experiment has."""

    baselines: Sequence[str]
    """Entries that are baselines, in the order in which they are reported."""

    endpoint: tuple[str, str]
    """(benchmark, metric) that decides contrasts: the primary endpoint, or the mean of all benchmarks without one."""

    replicates: str
    """What the rows of tables are: "seeds", or "worlds" if there are several."""

    unmet: Mapping[str, str]
    """Conditions of the claims that the experiment does not meet: a short name -> how it differs, in words."""

    no_room: str
    """Why no way to select prompts could show a gain in this experiment; "" if one could, or if it was not measured."""

    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """Differences between two arms, (seeds, prompts), in the metric's unit; None if it was not scored."""

    def within(self, method: str, ratio: float) -> str | None:
        """The arm of an entry that annotates at most `ratio` of what Online DPO does; None if it has none."""

    def measure(self, method: str, name: str) -> Table | None:
        """A quantity from the logs, (seeds, prompts), as a fraction; None if it was not logged."""

    def loss_gaps(self, method: str) -> Mapping[int, Sequence[float]]:
        """Iteration -> L_off - L_on, mean over training steps, of each replicate; empty if it was not logged."""

    def budget(self, method: str) -> float:
        """Realised annotation ratio over the whole training run, mean over seeds."""


class Logs:
    """Evidence from an experiment's scores and run logs, under one judge."""

    def __init__(self, results: Results, judge: str) -> None:
        self.results, self.judge = results, judge
        self.experiment = results.experiment
        self.methods = entries(self.experiment)
        self.baselines = roles.baselines(self.experiment)
        self.endpoint = endpoint_of(self.experiment)
        self.replicates = "seeds" if len(self.experiment.world.seeds) == 1 else "worlds"
        self.unmet = unmet_conditions(self.experiment)
        path = results.folder / "assay.json"
        self.no_room = no_room(read_json(path), MARGINS[self.endpoint[0]]) if path.exists() else ""

    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """See `Evidence.contrast`.

        A score that is no mean over prompts (length- or style-controlled) has values per prompt too: the score plus the
        prompt's influence on it (`eval.benchmark.Scores`).
        """
        if benchmark == OVERALL[0]:
            tables = [self.contrast(better, worse, b, RAW[b]) for b in self.experiment.benchmarks]
            return None if any(t is None for t in tables) else overall(tables, self.experiment.benchmarks)
        if benchmark not in self.experiment.benchmarks:
            return None
        left, right = self.values(benchmark, better, metric), self.values(benchmark, worse, metric)
        seeds = left.index.intersection(right.index)
        questions = left.columns.intersection(right.columns)
        difference = (left.loc[seeds, questions] - right.loc[seeds, questions]).to_numpy() * POINTS[benchmark]
        difference = difference[:, ~np.isnan(difference).any(axis=0)]
        if min(difference.shape) < 1 or difference.shape[1] < 2:
            return None
        return self.by_world(difference, seeds)

    def within(self, method: str, ratio: float) -> str | None:
        """See `Evidence.within`: the largest capped budget within the ratio, else the run without a cap if its realised
        ratio is."""
        budgets = self.experiment.methods[method].budget
        capped = [budget for budget in budgets if budget <= ratio]
        if capped:
            return arm_of(method, max(capped))
        return method if max(budgets) == 1 and self.budget(method) <= ratio else None

    def measure(self, method: str, name: str) -> Table | None:
        """See `Evidence.measure`; each prompt of the logs is a column, in log order.

        The annotation ratio is that of runs without a cap; there is none if all are capped.
        """
        if name == "annotation_ratio" and max(self.experiment.methods[method].budget) < 1:
            return None
        frame = self._ledger(method)
        if name == "annotation_ratio":
            return self._table(frame.assign(value=frame["responses_scored"] / responses_per_prompt(self.experiment)))
        if name == "sampling_decline":
            first, last = (frame[frame["iteration"] == t] for t in (1, self.experiment.iterations))
            tables = [self._table(f.assign(value=f["sampled"].astype(float))) for f in (first, last)]
            columns = min(table.shape[1] for table in tables)
            return None if self.experiment.iterations < 2 else tables[0][:, :columns] - tables[1][:, :columns]
        return self._map_change(method, frame)

    def loss_gaps(self, method: str) -> Mapping[int, Sequence[float]]:
        """See `Evidence.loss_gaps`; over the prompts that have both an offline and an online pair."""
        frame = self.results.at_full_budget(self.results.training)
        if "loss_gap" not in frame:
            return {}
        frame = frame[(frame["method"] == method) & frame["loss_gap"].notna()]
        means = frame.groupby(["iteration", "seed"])["loss_gap"].mean()
        return {
            int(t): self.by_world(rows.to_numpy()[:, None], list(rows.index.get_level_values("seed"))).ravel().tolist()
            for t, rows in means.groupby(level="iteration")
        }

    def budget(self, method: str) -> float:
        """See `Evidence.budget`; also of an arm."""
        return float(self._runs(method)["annotation_ratio_total"].mean())

    def ratios(self, arm: str) -> dict[int, float]:
        """Realised annotation ratio of each seed, or world if there are several."""
        runs = self._runs(arm)
        return self._means(dict(zip(runs["seed"], runs["annotation_ratio_total"])))

    def scores(self, arm: str) -> dict[int, float]:
        """Score on the endpoint after the last iteration of each seed, or world if there are several."""
        names = [self.endpoint[0]] if self.endpoint != OVERALL else self.experiment.benchmarks
        means = {name: POINTS[name] * self.values(name, arm, RAW[name]).mean(axis=1) for name in names}
        if self.endpoint == OVERALL:
            ends = {name: BENCHMARKS[name].scale for name in names}
            means = {n: 100 * (means[n] - low) / (high - low) for n, (low, high) in ends.items()}
        whole = sum(means.values()) / len(means)
        return self._means({int(seed): float(score) for seed, score in whole.dropna().items()})

    def _runs(self, arm: str) -> Any:
        method, budget = self._arm(arm)
        runs = self.results.runs
        return runs[(runs["method"] == method) & (runs["budget"] == budget)]

    def _means(self, by_seed: Mapping[int, float]) -> dict[int, float]:
        """Average the values of seeds within a world if there are several worlds."""
        if len(self.experiment.world.seeds) == 1:
            return dict(by_seed)
        worlds: dict[int, list[float]] = {}
        for seed, value in by_seed.items():
            worlds.setdefault(self.experiment.world_of(int(seed)), []).append(value)
        return {world: float(np.mean(values)) for world, values in worlds.items()}

    def values(self, benchmark: str, arm: str, metric: str) -> Any:
        """What averages to a metric of an arm after its last iteration: a data frame with seeds as rows and questions
        as columns; missing values throughout if the items do not have it. The items' plain value serves the raw metric
        where that is its mean."""
        method, budget = self._arm(arm)
        key = ("values", benchmark, self.judge, method, budget, metric)
        return self.results.once(key, lambda: self._pivot(benchmark, method, budget, metric))

    def _pivot(self, benchmark: str, method: str, budget: str, metric: str) -> Any:
        frame = self._last_items(benchmark)
        frame = frame[(frame["method"] == method) & (frame["budget"] == budget)]
        column = "value" if metric == RAW[benchmark] and metric not in frame else metric
        if column not in frame:
            frame = frame.assign(**{column: math.nan})
        return frame.pivot(index="seed", columns="question", values=column).sort_index()

    def _arm(self, arm: str) -> tuple[str, str]:
        """(entry, budget as in data frames) of an arm."""
        method, _, budget = arm.partition("@")
        return method, str(float(budget)) if budget else str(max(self.experiment.methods[method].budget))

    def _last_items(self, benchmark: str) -> Any:
        def made() -> Any:
            frame = self.results.items(benchmark, self.judge)
            trained = {run.seed for run in self.experiment.runs()}  # an earlier look has fewer than the file
            return frame[(frame["iteration"] == self.experiment.iterations) & frame["seed"].isin(trained)]

        return self.results.once(("last items", benchmark, self.judge), made)

    def _ledger(self, method: str) -> Any:
        def made() -> Any:
            frame = self.results.at_full_budget(self.results.annotations)
            return frame[frame["method"] == method]

        return self.results.once(("ledger", method), made)

    def _table(self, frame: Any) -> Table:
        """Values of a ledger as (seeds, prompts), prompts in log order, truncated to the shortest run."""
        rows = {seed: group["value"].to_numpy(float) for seed, group in frame.groupby("seed")}
        shortest = min(map(len, rows.values()))
        return self.by_world(np.array([row[:shortest] for row in rows.values()]), list(rows))

    def _map_change(self, method: str, frame: Any) -> Table | None:
        maps = self.results.at_full_budget(self.results.maps)
        maps = maps[maps["method"] == method]
        if not len(maps):
            return None
        frame = frame.assign(value=0.0)
        for seed, group in maps.groupby("seed"):
            curves = {t: c.sort_values("score") for t, c in group.groupby("iteration")}
            first, last = curves[min(curves)], curves[max(curves)]
            scores = frame.loc[frame["seed"] == seed, "offline_score"]
            before, after = (np.interp(scores, c["score"], c["weight"]) for c in (first, last))
            frame.loc[frame["seed"] == seed, "value"] = np.abs(after - before)
        return self._table(frame)

    def by_world(self, table: Table, seeds: Sequence[int]) -> Table:
        """Average rows within a world if there are several, since seeds that share a world are not independent."""
        if len(self.experiment.world.seeds) == 1:
            return table
        worlds = np.array([self.experiment.world_of(int(seed)) for seed in seeds])
        return np.array([table[worlds == world].mean(axis=0) for world in dict.fromkeys(worlds)])


def arm_of(method: str, budget: float) -> str:
    """An entry at one of its budgets."""
    return f"{method}@{budget:g}"


def endpoint_of(experiment: Experiment) -> tuple[str, str]:
    """(benchmark, metric) that decides contrasts: the first benchmark that declares itself primary, else the mean."""
    primary = [name for name in experiment.benchmarks if BENCHMARKS[name].primary]
    return (primary[0], RAW[primary[0]]) if primary else OVERALL


def unmet_conditions(experiment: Experiment) -> dict[str, str]:
    """What the paper's claims presuppose and this experiment does not have: name -> the difference in words."""
    unmet = {}
    if "metaapo" in experiment.methods and experiment.train_of("metaapo").start == SFT:
        unmet["start"] = (
            "training starts from the SFT policy here, in the authors' code from a policy trained on the offline pairs"
        )
    if experiment.world.name == "tiny":
        unmet["data and scale"] = (
            "made-up errands and a small model trained from scratch here, 61,135 real prompts and models of 7 to 8 "
            "billion parameters in the paper"
        )
    return unmet


def no_room(assay: Sequence[Mapping[str, Any]], margin: float) -> str:
    """Why no way to select prompts could show a gain, from the rows of assay.json; "" if one could.

    Args:
        assay: rows {name, value, ci_low, ci_high, ...}.
        margin: smallest gain that matters, in points of the primary endpoint.
    """
    rows = {row["name"]: row for row in assay}
    room = rows.get("room_selection")
    if room and room["ci_high"] is not None and room["ci_high"] < margin:
        return (
            f"an oracle that selects by each prompt's true gain beats random selection by only {room['value']:.3g} "
            f"[{room['ci_low']:.3g}, {room['ci_high']:.3g}] points, below the {margin:g} that matter"
        )
    spreads = [row["value"] for name, row in rows.items() if name.startswith("spread_iter")]
    if spreads and all(spread is not None and spread < SMALL_SPREAD for spread in spreads):
        return (
            f"the probability of sampling hardly differs between prompts (its standard deviation is at most "
            f"{max(spreads):.3g} in every iteration, below {SMALL_SPREAD}), so selection is random in effect"
        )
    return ""


def entries(experiment: Experiment) -> dict[str, str]:
    """Map every name that a claim can use (entries, roles, variants) to an entry."""
    players = {part: roles.first_that(experiment, test) for part, test in PARTS.items()}
    players |= {m: roles.first_of_module(experiment, m) for m in roles.modules_that(roles.required)}
    played = {part: name for part, name in players.items() if name}
    return played | {name: name for name in experiment.methods} | _variants(experiment)


def _variants(experiment: Experiment) -> dict[str, str]:
    """Entries of the configuration that are MetaAPO with a single setting changed, keyed by that change."""
    module = "metaapo.metaapo"
    settings = {n: m.model_dump() for n, m in experiment.methods.items() if module_of(n, m) == module}
    reference = settings.get("metaapo")
    found: dict[str, str] = {}
    for name, entry in settings.items():
        changes = _changes(entry, reference) if reference else {}
        if len(changes) == 1 and set(changes) <= set(VARIANT_KEYS):
            [(key, value)] = changes.items()
            found.setdefault(f"{key}: {value}", name)
    return found


def _changes(entry: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Settings in which two entries differ, ignoring the matched run, the seeds and what is answered."""
    ignored = ("module", "match", "seeds", "budget", "role", "benchmarks")
    return {key: value for key, value in entry.items() if key not in ignored and value != reference.get(key)}


def overall(tables: list[Table], names: list[str]) -> Table:
    """Tables of several benchmarks side by side, on 0 to 100, scaled so that each benchmark has the same weight."""
    total = sum(table.shape[1] for table in tables)
    ends = [BENCHMARKS[benchmark].scale for benchmark in names]
    scales = [100 / (high - low) for low, high in ends]
    return np.hstack([t * s * total / (len(tables) * t.shape[1]) for t, s in zip(tables, scales)])
