"""The evidence for verdicts: differences between methods and quantities from run logs, as (seeds, prompts) tables.

`Evidence` is the interface that `reports.claims` uses; `Logs` implements it with scores and run logs on disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.benchmark import benchmarks
from metaapo.experiment import Experiment
from metaapo.method import module_of
from reports import roles
from reports.collect import responses_per_prompt
from reports.runs import Results

# (seeds, prompts) of differences or measures; worlds instead of seeds if there are several
Table = NDArray[np.float64]

BENCHMARKS = benchmarks()
RAW = {name: found.raw_metric for name, found in BENCHMARKS.items()}  # the metric that the items average to
POINTS = {name: found.item_scale for name, found in BENCHMARKS.items()}  # unit of the scores per unit of the items

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

    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """Differences better - worse, (seeds, prompts), in the metric's unit; None if it was not scored."""

    def measure(self, method: str, name: str) -> Table | None:
        """A quantity from the logs, (seeds, prompts), as a fraction; None if it was not logged."""

    def budget(self, method: str) -> float:
        """Realised annotation ratio over the whole training run, mean over seeds."""


class Logs:
    """Evidence from an experiment's scores and run logs, under one judge."""

    def __init__(self, results: Results, judge: str) -> None:
        self.results, self.judge = results, judge
        self.experiment = results.experiment
        self.methods = entries(self.experiment)
        self.baselines = roles.baselines(self.experiment)

    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """See `Evidence.contrast`.

        A score that is not a mean over prompts (length- or style-controlled) has no value per prompt: its differences
        between seeds are used as they are, its spread over prompts is taken from the raw rate.
        """
        if benchmark == "overall":
            tables = [self.contrast(better, worse, b, RAW[b]) for b in self.experiment.benchmarks]
            return None if any(t is None for t in tables) else _overall(tables, self.experiment.benchmarks)
        if benchmark not in self.experiment.benchmarks:
            return None
        left, right = self._values(benchmark, better), self._values(benchmark, worse)
        seeds = left.index.intersection(right.index)
        questions = left.columns.intersection(right.columns)
        difference = (left.loc[seeds, questions] - right.loc[seeds, questions]).to_numpy() * POINTS[benchmark]
        difference = difference[:, ~np.isnan(difference).any(axis=0)]
        if min(difference.shape) < 1 or difference.shape[1] < 2:
            return None
        if metric != RAW[benchmark]:
            controlled = [
                self._score(benchmark, metric, better, s) - self._score(benchmark, metric, worse, s) for s in seeds
            ]
            if np.isnan(controlled).any():
                return None
            difference += np.array(controlled)[:, None] - difference.mean(axis=1, keepdims=True)
        return self._by_world(difference, seeds)

    def measure(self, method: str, name: str) -> Table | None:
        """See `Evidence.measure`; each prompt of the logs is a column, in log order."""
        frame = self._ledger(method)
        if name == "annotation_ratio":
            return self._table(frame.assign(value=frame["responses_scored"] / responses_per_prompt(self.experiment)))
        if name == "sampling_decline":
            first, last = (frame[frame["iteration"] == t] for t in (1, self.experiment.iterations))
            tables = [self._table(f.assign(value=f["sampled"].astype(float))) for f in (first, last)]
            columns = min(table.shape[1] for table in tables)
            return None if self.experiment.iterations < 2 else tables[0][:, :columns] - tables[1][:, :columns]
        return self._map_change(method, frame)

    def budget(self, method: str) -> float:
        """See `Evidence.budget`."""
        runs = self.results.at_full_budget(self.results.runs)
        return float(runs[runs["method"] == method]["annotation_ratio_total"].mean())

    @lru_cache(maxsize=256)  # noqa: B019 (one instance per process)
    def _values(self, benchmark: str, method: str) -> Any:
        """Items of a method after its last iteration: a data frame with seeds as rows and questions as columns."""
        frame = self._items_at_full_budget(benchmark)
        frame = frame[(frame["method"] == method) & (frame["iteration"] == self.experiment.iterations)]
        return frame.pivot(index="seed", columns="question", values="value").sort_index()

    @lru_cache(maxsize=8)  # noqa: B019
    def _items_at_full_budget(self, benchmark: str) -> Any:
        return self.results.at_full_budget(self.results.items(benchmark, self.judge))

    def _score(self, benchmark: str, metric: str, method: str, seed: int) -> float:
        return self._last_scores().get((benchmark, metric, method, seed), math.nan)

    @lru_cache(maxsize=1)  # noqa: B019
    def _last_scores(self) -> Mapping[tuple[str, str, str, int], float]:
        frame = self.results.at_full_budget(self.results.scores)
        frame = frame[(frame["judge"] == self.judge) & (frame["iteration"] == self.experiment.iterations)]
        keys = zip(frame["benchmark"], frame["metric"], frame["method"], frame["seed"])
        return dict(zip(keys, frame["value"]))

    def _ledger(self, method: str) -> Any:
        frame = self.results.at_full_budget(self.results.annotations)
        return frame[frame["method"] == method]

    def _table(self, frame: Any) -> Table:
        """Values of a ledger as (seeds, prompts), prompts in log order, truncated to the shortest run."""
        rows = {seed: group["value"].to_numpy(float) for seed, group in frame.groupby("seed")}
        shortest = min(map(len, rows.values()))
        return self._by_world(np.array([row[:shortest] for row in rows.values()]), list(rows))

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

    def _by_world(self, table: Table, seeds: Sequence[int]) -> Table:
        """Average rows within a world if there are several, since seeds that share a world are not independent."""
        if len(self.experiment.world.seeds) == 1:
            return table
        worlds = np.array([self.experiment.world_of(int(seed)) for seed in seeds])
        return np.array([table[worlds == world].mean(axis=0) for world in dict.fromkeys(worlds)])


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
    """Settings in which two entries differ, ignoring the matched run and the seeds."""
    ignored = ("module", "match", "seeds", "budget", "role")
    return {key: value for key, value in entry.items() if key not in ignored and value != reference.get(key)}


def _overall(tables: list[Table], names: list[str]) -> Table:
    """Tables of several benchmarks side by side, on 0 to 100, scaled so that each benchmark has the same weight."""
    total = sum(table.shape[1] for table in tables)
    ends = [BENCHMARKS[benchmark].scale for benchmark in names]
    scales = [100 / (high - low) for low, high in ends]
    return np.hstack([t * s * total / (len(tables) * t.shape[1]) for t, s in zip(tables, scales)])
