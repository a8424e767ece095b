"""Figures of scores: against annotations, by iteration, between methods, budgets and judges.

Points are means over training seeds, bars are 95 % t-intervals over seeds (`eval.stats.mean_over_seeds`).
"""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval import stats
from reports import roles
from reports.collect import responses_per_prompt
from reports.drawing import SFT_LOOK, Drawn, label_ends, look_of, mean_and_half_width, offset, panel_height
from reports.first_screen import metric_title
from reports.runs import KEYS, Results
from reports.tables import BENCHMARKS, TITLES, name_of

RAW = {name: declared.raw_metric for name, declared in BENCHMARKS.items()}
SCORE_COLUMNS = [*KEYS, "iteration", "benchmark", "value", "n"]
PAPER_RATIO = 58.0  # MetaAPO's mean annotation ratio in the paper's first figure, in percent of Online DPO's


def budget(results: Results) -> Drawn | None:
    """The paper's first figure: win rate after each iteration against the annotations spent so far."""
    benchmark, metric = _headline(results)
    points = _spending(results, benchmark, metric)
    if not len(points):
        return None
    shown = results.main(points)
    height = panel_height(shown["method"].nunique(), 3.3)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, height), width_ratios=(1.15, 1))
    ends: dict[str, list[Any]] = {"left": [], "right": []}
    for method, group in shown.groupby("method", sort=False):
        look = look_of(method, list(results.experiment.methods))
        ends["left"].append((*_budget_curve(left, group, look, name_of(method)), name_of(method), look))
        ends["right"].append((*_ratio_curve(right, group, look, offset(results, method)), name_of(method), look))
    _baseline(left, results, benchmark, metric)
    left.set(xlabel="responses scored, % of Online DPO's total", ylabel=_label(benchmark, metric))
    left.set_title("Score against annotations spent")
    left.set_xlim(-6, max(106, left.get_xlim()[1]))
    right.set(xlabel="iteration", ylabel="responses scored, % of Online DPO's")
    right.set_title("Annotations of each iteration")
    right.axhline(PAPER_RATIO, color="#777777", linestyle=":", linewidth=1)
    beside = {"color": "#555555", "fontsize": 7, "transform": right.get_yaxis_transform()}
    right.text(0.02, PAPER_RATIO - 2, "58 % (paper)", va="top", **beside)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_ylim(-6, max(106, right.get_ylim()[1]))
    label_ends(left, ends["left"])
    label_ends(right, ends["right"])
    caption = (
        f"{_in_full(benchmark, metric)}, after each iteration (numbered) against the responses that the "
        "reward model had scored by then, from the annotation ledger, relative to Online DPO's total. "
        f"{_provenance(results, benchmark)} Bars: 95 % t-intervals over seeds, faint points: single seeds. Points "
        "without annotations are spread sideways. Right: the annotation ratio of each iteration; dotted, the "
        "paper's mean for MetaAPO."
    )
    return Drawn(
        "budget",
        "results",
        "Win rate against annotation budget",
        caption,
        _budget_alt(results, points),
        figure,
        shown[[*SCORE_COLUMNS, "annotations", "spent", "ratio"]],
    )


def _spending(results: Results, benchmark: str, metric: str) -> pd.DataFrame:
    """One row per model: value, spent (% of Online DPO's total over training), ratio (%, this iteration)."""
    frame = score_rows(results, benchmark, metric)
    frame = frame[frame["method"] != "sft"]
    full = full_annotations(results)
    return frame.assign(spent=100 * frame["annotations"] / full, ratio=100 * frame["annotation_ratio"])


def full_annotations(results: Results) -> float:
    """Responses that Online DPO scores over a whole training run: K for every prompt."""
    prompts = max(sum(s["prompts"] for s in record["iterations"]) for record in results.records.values())
    return max(1, responses_per_prompt(results.experiment) * prompts)


def _budget_curve(axes: Axes, group: pd.DataFrame, look: dict[str, str], label: str) -> tuple[float, float]:
    """Draw a method's score against its annotations; returns its last point."""
    rows = []
    for iteration, cell in group.groupby("iteration"):
        (x, dx), (y, dy) = mean_and_half_width(cell["spent"]), mean_and_half_width(cell["value"])
        shift = 2.2 * (iteration - (group["iteration"].max() + 1) / 2) if group["spent"].max() == 0 else 0.0
        axes.plot(
            cell["spent"] + shift, cell["value"], linestyle="", alpha=0.28, markersize=3.5, markeredgewidth=0, **look
        )
        rows.append((iteration, x + shift, y, dx, dy))
    iteration, x, y, dx, dy = map(np.array, zip(*rows))
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.errorbar(x, y, yerr=dy, xerr=dx, label=label, elinewidth=0.9, **edge, **look)
    for i, spent, score in zip(iteration, x, y):
        axes.annotate(str(i), (spent, score), (4, 4), textcoords="offset points", fontsize=7)
    return float(x[-1]), float(y[-1])


def _ratio_curve(axes: Axes, group: pd.DataFrame, look: dict[str, str], offset: float) -> tuple[float, float]:
    """Draw the annotations of each iteration; returns the last point."""
    rows = [(i, *mean_and_half_width(cell["ratio"])) for i, cell in group.groupby("iteration")]
    iteration, ratio, width = map(np.array, zip(*rows))
    axes.errorbar(
        iteration + offset, ratio, yerr=width, elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.6, **look
    )
    return float(iteration[-1]) + offset, float(ratio[-1])


def _baseline(axes: Axes, results: Results, benchmark: str, metric: str) -> None:
    """Draw the SFT policy's level: 50 % if it is the baseline of the comparison, else its own score."""
    sft = score_rows(results, benchmark, metric)
    sft = sft[sft["method"] == "sft"]["value"]
    level = sft.mean() if len(sft) else (50.0 if results.baseline(benchmark) == "sft" else None)
    if level is not None:
        axes.axhline(level, color=SFT_LOOK[0], linestyle="--", linewidth=1)
        beside = {"transform": axes.get_yaxis_transform(), "fontsize": 7, "color": SFT_LOOK[0]}
        axes.text(0.99, level, "SFT policy", ha="right", va="bottom", **beside)


def _budget_alt(results: Results, points: pd.DataFrame) -> str:
    last = results.main(points)
    last = last[last["iteration"] == last["iteration"].max()].groupby("method", sort=False)[["value", "spent"]].mean()
    ends = "; ".join(f"{name_of(m)} {row.value:.1f} at {row.spent:.0f} %" for m, row in last.iterrows())
    return f"Scores after the last iteration at the share of Online DPO's annotations spent: {ends}."


def curves(results: Results) -> Drawn | None:
    """The raw score on every benchmark after each iteration."""
    benchmarks = [b for b in results.experiment.benchmarks if len(score_rows(results, b, RAW[b]))]
    if not benchmarks:
        return None
    figure, panels = _panels(len(benchmarks), panel_height(results.scores["method"].nunique(), 2.5))
    for ax, benchmark in zip(panels, benchmarks):
        frame = results.main(score_rows(results, benchmark, RAW[benchmark]))
        ends = []
        for method, group in frame[frame["method"] != "sft"].groupby("method", sort=False):
            rows = [(i, *mean_and_half_width(cell["value"])) for i, cell in group.groupby("iteration")]
            i, y, dy = map(np.array, zip(*rows))
            look = look_of(method, list(results.experiment.methods))
            ax.errorbar(i + offset(results, method), y, yerr=dy, elinewidth=0.9, **look)
            ends.append((i[-1] + offset(results, method), y[-1], name_of(method), look))
        _baseline(ax, results, benchmark, RAW[benchmark])
        ax.set(xlabel="iteration", ylabel=_label(benchmark, RAW[benchmark], short=True))
        ax.set_title(TITLES[benchmark])
        low, high = BENCHMARKS[benchmark].scale
        ax.set_ylim(top=min(ax.get_ylim()[1], high + (high - low) / 100))  # room for a marker at the top
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_ends(ax, ends)
    caption = (
        f"Raw score after each iteration on every benchmark. {_provenance(results, *benchmarks)} Bars: 95 % "
        "t-intervals over seeds; methods are shifted sideways so that bars do not cover each other."
    )
    return Drawn(
        "curves",
        "results",
        "Every benchmark, by iteration",
        caption,
        "Line charts of scores by iteration.",
        figure,
        _raw_scores(results, results.main(results.scores)),
    )


def contrasts(results: Results) -> Drawn | None:
    """A forest plot of all comparisons behind the verdicts."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for claim in results.claims:
        for part in claim["parts"]:
            if part["benchmark"] and part["ci_low"] is not None:
                entry = rows.setdefault((part["label"], part["benchmark"], part["metric"]), {**part, "claims": []})
                entry["claims"].append(claim["id"])
                entry["decides"] = entry["decides"] or part["decides"]
    if not rows:
        return None
    metrics = list(dict.fromkeys((part["benchmark"], part["metric"]) for part in rows.values()))
    metrics.sort(key=lambda metric: not any(part["decides"] for part in rows.values() if _metric(part) == metric))
    by_metric = {metric: [part for part in rows.values() if _metric(part) == metric] for metric in metrics}
    figure, panels = _panels(len(metrics), 0.5 + 0.36 * max(map(len, by_metric.values())))
    for ax, (metric, parts) in zip(panels, by_metric.items()):
        _forest(ax, parts, list(results.experiment.methods))
        ax.set_title(metric_title(*metric))
    n_seeds = max(part["n_seeds"] for part in rows.values())
    judge, replicates = results.claims[0]["judge"], results.claims[0]["replicates"]
    caption = (
        "Every comparison of scores behind the verdicts after the last iteration: difference and 95 % interval over "
        f"{n_seeds} {replicates} and the prompts together, paired, without the correction that the verdicts use. "
        f"Dotted: the smallest gain that would matter. Judge: {judge}. Bold, with the claims that it belongs to: a "
        "comparison that decides; the others decide nothing. 'All benchmarks' is the mean of their raw scores on 0 to "
        "100."
    )
    return Drawn(
        "contrasts",
        "results",
        "Comparisons behind the verdicts",
        caption,
        "Forest plot; the numbers are in the verdicts' details.",
        figure,
        pd.DataFrame(rows.values())[["label", "benchmark", "metric", "effect", "ci_low", "ci_high", "unit", "n_seeds"]],
    )


def _metric(part: dict[str, Any]) -> tuple[str, str]:
    return part["benchmark"], part["metric"]


def _forest(axes: Axes, parts: list[dict[str, Any]], methods: list[str]) -> None:
    """Differences with their intervals, each below what it compares, so that a narrow panel has room for long names."""
    for y, part in enumerate(parts):
        color = look_of(part["label"].split(" - ")[1].partition("@")[0], methods)["color"]
        axes.plot([part["ci_low"], part["ci_high"]], [y, y], color=color, linewidth=1.8)
        axes.plot([part["effect"]], [y], marker="o", color=color, markersize=5)
        better, worse = part["label"].split(" - ")
        claims = f" ({', '.join(part['claims'])})" if part["decides"] else ""
        weight = "bold" if part["decides"] else "normal"
        text = f"{name_of(better)} − {name_of(worse)}{claims}"
        axes.text(0.01, y - 0.28, text, transform=axes.get_yaxis_transform(), fontsize=7.5, va="center", weight=weight)
    axes.axvline(0, color="#333333", linewidth=0.9)
    axes.axvline(parts[0]["margin"], color="#777777", linewidth=0.9, linestyle=":")
    axes.set(yticks=[], ylim=(len(parts) - 0.6, -0.7))
    axes.set_xlabel("difference, points" if parts[0]["unit"] == "points" else "difference, grades")


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels in two columns."""
    rows = math.ceil(count / 2)
    figure, axes = plt.subplots(rows, min(2, count), figsize=(3.7 * min(2, count), height * rows), squeeze=False)
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return figure, list(axes.flat[:count])


def sweep(results: Results) -> Drawn | None:
    """Final score against measured budget for methods that were trained at several budgets."""
    benchmark, metric = _headline(results)
    points = _spending(results, benchmark, metric)
    swept = [name for name, method in results.experiment.methods.items() if len(method.budget) > 1]
    if not swept or not len(points):
        return None
    last = points[points["iteration"] == results.experiment.iterations]
    last = last[~last["method"].isin(set(results.variants) - set(swept))]
    figure, axes = plt.subplots(figsize=(4.2, panel_height(last["method"].nunique(), 3.0)))
    ends = []
    for method, group in last.groupby("method", sort=False):
        cells = [(mean_and_half_width(c["spent"]), mean_and_half_width(c["value"])) for _, c in group.groupby("budget")]
        (x, dx), (y, dy) = (np.array(side).T for side in zip(*sorted(cells)))
        look = look_of(method, list(results.experiment.methods))
        axes.errorbar(x, y, xerr=dx, yerr=dy, **look)
        ends.append((x[-1], y[-1], name_of(method), look))
    _baseline(axes, results, benchmark, metric)
    axes.set(xlabel="responses scored, % of Online DPO's total", ylabel=_label(benchmark, metric))
    label_ends(axes, ends)
    caption = (
        f"{_in_full(benchmark, metric)}, after the last iteration, at every trained budget. "
        f"Horizontal: the measured budget from the ledger, not the cap. {_provenance(results, benchmark)} Bars: 95 % "
        "t-intervals over seeds."
    )
    return Drawn(
        "sweep",
        "results",
        "Budget sweep",
        caption,
        "Scores against measured budgets.",
        figure,
        last[[*SCORE_COLUMNS, "spent"]],
    )


def ablations(results: Results) -> Drawn | None:
    """Overall score of MetaAPO's variants after the last iteration."""
    methods, variants = results.experiment.methods, results.variants
    if not variants or "metaapo" not in methods:
        return None
    beside = [roles.first_that(results.experiment, test) for test in (roles.matched_random, roles.full_budget)]
    shown = ["metaapo", *variants, *[name for name in beside if name]]
    benchmarks = results.experiment.benchmarks
    figure, panels = _panels(len(benchmarks), 0.22 * len(shown) + 0.9)
    for ax, benchmark in zip(panels, benchmarks):
        frame = results.at_full_budget(score_rows(results, benchmark, RAW[benchmark]))
        frame = frame[frame["iteration"] == results.experiment.iterations]
        for y, method in enumerate(shown):
            group = frame[frame["method"] == method]["value"]
            if len(group):
                value, width = mean_and_half_width(group)
                ax.errorbar(value, y, xerr=width, **look_of(method, list(results.experiment.methods)))
                if method == "metaapo":
                    ax.axvline(value, color=look_of(method, list(methods))["color"], linewidth=0.8, linestyle=":")
        ax.set_yticks(range(len(shown)), [name_of(method) for method in shown])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        left, right = ax.get_xlim()
        low, high = BENCHMARKS[benchmark].scale
        ax.set_xlim(max(left, low), min(right, high))
        ax.set_xlabel(_label(benchmark, RAW[benchmark], short=True))
        ax.set_title(TITLES[benchmark])
    caption = (
        "MetaAPO with one part changed, and the controls, after the last iteration. "
        f"{_provenance(results, *benchmarks)} Bars: 95 % t-intervals over seeds (the paired comparisons are in the "
        "verdicts)."
    )
    data = _raw_scores(results, results.at_full_budget(results.scores))
    data = data[data["method"].isin(shown) & (data["iteration"] == results.experiment.iterations)]
    return Drawn("ablations", "results", "Ablations and controls", caption, "Dot chart of variants.", figure, data)


def judges(results: Results) -> Drawn | None:
    """Scores of the same answers under two judges, with their rank correlation."""
    names = results.experiment.judges
    if len(names) < 2:
        return None
    benchmarks = results.experiment.benchmarks
    figure, panels = _panels(len(benchmarks), panel_height(results.scores["method"].nunique(), 2.7))
    for ax, benchmark in zip(panels, benchmarks):
        ends = []
        a, b = (_model_scores(results, benchmark, judge) for judge in names[:2])
        both = a.index.intersection(b.index)
        for method, group in a[both].groupby("method", sort=False):
            if method != "sft":
                look = look_of(method, list(results.experiment.methods))
                ax.plot(group, b[group.index], linestyle="", alpha=0.7, **look)
                ends.append((group.iloc[-1], b[group.index].iloc[-1], name_of(method), look))
        ax.set(xlabel=f"judge {names[0]}", ylabel=f"judge {names[1]}")
        tau = stats.kendall_tau(a[both], b[both]) if a[both].nunique() > 1 < b[both].nunique() else None
        ax.set_title(TITLES[benchmark])
        if tau:
            text = f"τ = {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
            ax.text(0.02, 0.98, text, transform=ax.transAxes, va="top", fontsize=7)
        label_ends(ax, ends)
    caption = (
        f"Each point is a model (method, seed, iteration); the same answers under the judges {names[0]} and "
        f"{names[1]}. Kendall's tau with its 95 % interval over models. Tables never mix judges."
    )
    data = results.scores[results.scores["metric"] == results.scores["benchmark"].map(RAW)][[*SCORE_COLUMNS, "judge"]]
    alt = "Scatter of scores under two judges."
    return Drawn("judges", "results", "Agreement of judges", caption, alt, figure, data)


def _model_scores(results: Results, benchmark: str, judge: str) -> pd.Series:
    frame = results.scores
    frame = frame[(frame["benchmark"] == benchmark) & (frame["metric"] == RAW[benchmark]) & (frame["judge"] == judge)]
    return frame.set_index([*KEYS, "iteration"])["value"]


def _raw_scores(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """Raw scores of trained models under the first judge."""
    chosen = (frame["metric"] == frame["benchmark"].map(RAW)) & (frame["judge"] == results.experiment.judges[0])
    return frame[chosen & (frame["method"] != "sft")][SCORE_COLUMNS]


def _headline(results: Results) -> tuple[str, str]:
    """The raw metric of the primary endpoint, else of the configuration's first benchmark (in the paper's first figure:
    AlpacaEval 2's win rate)."""
    names = results.experiment.benchmarks
    benchmark = next((name for name in names if BENCHMARKS[name].primary), names[0])
    return benchmark, RAW[benchmark]


def score_rows(results: Results, benchmark: str, metric: str) -> pd.DataFrame:
    """Scores on one metric under the first judge."""
    frame = results.scores
    first = results.experiment.judges[0]
    return frame[(frame["benchmark"] == benchmark) & (frame["metric"] == metric) & (frame["judge"] == first)]


def _in_full(benchmark: str, metric: str) -> str:
    return f"{TITLES[benchmark]}, {BENCHMARKS[benchmark].words(metric)}"


def _label(benchmark: str, metric: str, short: bool = False) -> str:
    declared = BENCHMARKS[benchmark]
    if declared.unit == "grade":
        return f"{declared.words(metric)} ({declared.scale[0]:g} to {declared.scale[1]:g})"
    return f"{declared.words(metric)}, %" if short else f"{declared.title} {declared.words(metric)}, %"


def _provenance(results: Results, *benchmarks: str) -> str:
    """State n, seeds and judge of the scores in a figure as a sentence."""
    frame = results.scores
    frame = frame[frame["benchmark"].isin(benchmarks) & (frame["judge"] == results.experiment.judges[0])]
    counts = " and ".join(dict.fromkeys(str(n) for n in sorted(frame["n"].unique())))
    n = counts if frame["n"].nunique() <= 2 else f"{frame['n'].min()} to {frame['n'].max()}"
    seeds = frame[frame["method"] != "sft"].groupby("method")["seed"].nunique()
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    versions = ", ".join(dict.fromkeys(frame["version"].astype(str)))
    return f"n = {n} prompts, {span} seeds, judge: {results.experiment.judges[0]} (protocol {versions})."
