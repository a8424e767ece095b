"""What a method's score costs: the annotations that it needs to reach Online DPO's, and its score over all budgets.

    python -m reports.curve --config config/default.yaml

Writes curve.json if the experiment trains some method at several budgets; otherwise there is no curve. A method's curve
joins the scores of its runs after the last iteration, on the endpoint of the claims, against the annotations that they
really used (relative to Online DPO's total, on a log scale), world by world. The points of one run's iterations are not
used: they differ in training as well as in annotations. Two numbers summarise it:

- `reach`: the annotation ratio at which the curve first reaches Online DPO's score in the same world. Where it is above
  that score at its smallest budget, the ratio is known only to be at most that budget ("below"); where it never gets
  there, only to exceed its largest ("above"). So the estimate is the median over worlds, with the interval between two
  order statistics, whose coverage is exact for any distribution and any censoring (Conover, Practical Nonparametric
  Statistics, 1999, section 3.2). An interval of 95 % needs six worlds; with fewer it is the range, and `coverage` says
  what that covers.
- `area`: the mean of the curve over log annotations, in the unit of the endpoint, between two ratios that every method
  and world covers; mean over worlds with Student's t-interval, and its difference from Online DPO's own curve, paired
  by world, where that has several budgets too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import bdtr

from eval import stats
from metaapo.data import write_json
from reports.evidence import FULL_BUDGET, Logs, arm_of
from reports.runs import Results

Point = tuple[float, float]  # annotation ratio, 0 to about 1, and score
Record = dict[str, Any]
CONFIDENCE = 0.95


def curve(results: Results) -> Record | None:
    """The content of curve.json; None if no method has several budgets, or there is no Online DPO to compare with.

    Returns:
        {endpoint, target: the method whose score is to be reached, replicates, range: the ratios between which areas
        are taken or None, methods: [{method, points, reach, area, area_difference}]}.
    """
    logs = Logs(results, results.experiment.judges[0])
    rival = logs.methods.get(FULL_BUDGET)
    entries = results.experiment.methods.items()
    swept = [name for name, method in entries if len([b for b in method.budget if b > 0]) > 1]
    if rival is None or not swept:
        return None
    target = logs.scores(rival)
    points = {name: points_of(logs, name) for name in swept}
    points = {name: found for name, found in points.items() if found}
    ends = common_range(list(points.values()))
    areas = {name: areas_of(by_world, ends) for name, by_world in points.items()}
    return {
        "endpoint": dict(zip(("benchmark", "metric"), logs.endpoint)),
        "target": rival,
        "replicates": logs.replicates,
        "range": None if ends is None else [_round(end) for end in ends],
        "methods": [
            {
                "method": name,
                "points": _mean_points(logs, name),
                "reach": reach(by_world, target),
                "area": _over_worlds(list(areas[name].values())),
                "area_difference": _difference(areas[name], areas.get(rival, {})) if name != rival else None,
            }
            for name, by_world in points.items()
        ],
    }


def points_of(logs: Logs, method: str) -> dict[int, list[Point]]:
    """World (or seed) -> the points of a method's curve, by rising annotations; only worlds with at least two."""
    found: dict[int, list[Point]] = {}
    for budget in logs.experiment.methods[method].budget:
        arm = arm_of(method, budget)
        ratios = logs.ratios(arm)
        for world, score in logs.scores(arm).items():
            if ratios.get(world, 0.0) > 0:
                found.setdefault(world, []).append((ratios[world], score))
    return {world: sorted(points) for world, points in found.items() if len(points) > 1}


def crossing(points: Sequence[Point], target: float) -> tuple[float, str]:
    """Where a curve first reaches a score, linear in log annotations between its points.

    Args:
        points: (ratio, score) by rising ratio.
        target: the score to reach.

    Returns:
        (ratio, ""), or (smallest ratio, "below") or (largest ratio, "above") if it is known only to lie beyond.

    >>> crossing([(0.1, 50.0), (1.0, 60.0)], 55.0)[0]
    0.31622776601683794
    """
    if points[0][1] >= target:
        return points[0][0], "below"
    for (ratio, score), (next_ratio, next_score) in zip(points, points[1:]):
        if next_score >= target:
            share = (target - score) / (next_score - score)
            return float(ratio * (next_ratio / ratio) ** share), ""
    return points[-1][0], "above"


def reach(by_world: Mapping[int, Sequence[Point]], target: Mapping[int, float]) -> Record:
    """The median annotation ratio at which worlds reach their target, with its order-statistic interval.

    Returns:
        {value, bound: "" or where the median is censored, ci_low, ci_high (None: unbounded), coverage of the interval,
        n worlds, below, above: censored worlds, unit}.
    """
    found = [crossing(points, target[world]) for world, points in by_world.items() if world in target]
    order = sorted(found, key=lambda crossed: (-1 if crossed[1] == "below" else crossed[1] == "above", crossed[0]))
    n = len(order)
    low, high, coverage = _order_statistics(n)
    ends = [None if order[i][1] == side else order[i][0] for i, side in ((low, "below"), (high, "above"))]
    middle = order[(n - 1) // 2], order[n // 2]
    bound = "above" if middle[1][1] == "above" else middle[0][1]
    value = math.sqrt(middle[0][0] * middle[1][0]) if not bound else middle[bound == "above"][0]
    counts = {side: sum(crossed[1] == side for crossed in found) for side in ("below", "above")}
    return {
        "value": _round(value),
        "bound": bound,
        "ci_low": _round(ends[0]),
        "ci_high": _round(ends[1]),
        "coverage": _round(coverage),
        "n": n,
        **counts,
        "unit": "share of Online DPO's annotations",
    }


def _order_statistics(n: int) -> tuple[int, int, float]:
    """(low, high, coverage) of the narrowest symmetric interval of order statistics that covers the median with 95 %,
    or of the widest there is."""
    for low in range((n - 1) // 2, -1, -1):
        coverage = 1 - 2 * float(bdtr(low, n, 0.5))
        if coverage >= CONFIDENCE or low == 0:
            return low, n - 1 - low, max(coverage, 0.0)
    raise ValueError("no world has a curve")


def common_range(curves: Sequence[Mapping[int, Sequence[Point]]]) -> tuple[float, float] | None:
    """The ratios that every curve of every world covers; None if there is no such range."""
    every = [points for by_world in curves for points in by_world.values()]
    if not every:
        return None
    low, high = max(points[0][0] for points in every), min(points[-1][0] for points in every)
    return (low, high) if low < high else None


def areas_of(by_world: Mapping[int, Sequence[Point]], ends: tuple[float, float] | None) -> dict[int, float]:
    """World -> mean of its curve over log annotations between two ratios; empty without a range."""
    if ends is None:
        return {}
    return {world: mean_over_log(points, *ends) for world, points in by_world.items()}


def mean_over_log(points: Sequence[Point], low: float, high: float) -> float:
    """The mean of a curve that is linear in log annotations, between two ratios that it covers.

    >>> mean_over_log([(0.1, 50.0), (1.0, 60.0)], 0.1, 1.0)
    55.0
    """
    x, y = np.log([ratio for ratio, _ in points]), np.array([score for _, score in points])
    ends = np.log([low, high])
    grid = np.unique(np.concatenate([ends, x[(x > ends[0]) & (x < ends[1])]]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (ends[1] - ends[0]))


def _over_worlds(values: Sequence[float]) -> Record | None:
    if not values:
        return None
    e = stats.mean_over_seeds(values)
    return {"value": _round(e.value), "ci_low": _round(e.low), "ci_high": _round(e.high), "n": e.n_seeds}


def _difference(areas: Mapping[int, float], others: Mapping[int, float]) -> Record | None:
    return _over_worlds([areas[world] - others[world] for world in areas if world in others])


def _mean_points(logs: Logs, method: str) -> list[Record]:
    rows = []
    for budget in sorted(logs.experiment.methods[method].budget):
        arm = arm_of(method, budget)
        score = float(np.mean(list(logs.scores(arm).values())))
        rows.append({"budget": budget, "ratio": _round(logs.budget(arm)), "score": _round(score)})
    return rows


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def write(results: Results) -> None:
    """Write curve.json, or remove an old one if there is no curve."""
    path, found = results.folder / "curve.json", curve(results)
    if found is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, found)


def main() -> None:
    """Command line: python -m reports.curve --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.curve", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    write(Results.load(parser.parse_args().config))


if __name__ == "__main__":
    main()
