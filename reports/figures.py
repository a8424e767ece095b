"""The figures of the report, each drawn only when its data exist, with captions that say n, seeds and judge.

A figure is a function of `Results` that returns a `Drawn`, or None where the experiment has nothing for it to show.
Points are means over training seeds, bars are 95 % t-intervals over seeds (`eval.stats.mean_over_seeds`); a method has
the same colour and marker everywhere.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval import stats
from metaapo.data import write_bytes, write_text
from reports.collect import responses_per_prompt
from reports.runs import KEYS, Results
from reports.tables import name_of

STYLE = Path(__file__).with_name("style.mplstyle")
NAMES = {"alpacaeval2": "AlpacaEval 2", "arenahard": "Arena-Hard", "mtbench": "MT-Bench"}
# Okabe & Ito (2008), without their yellow, which vanishes on white
LOOKS = {
    "metaapo": ("#D55E00", "o"),
    "online_dpo": ("#0072B2", "s"),
    "dpo": ("#009E73", "^"),
    "random": ("#CC79A7", "D"),
    "selm": ("#E69F00", "v"),
    "ppo": ("#56B4E9", "P"),
    "sft": ("#444444", "x"),
}
SPARE_COLORS = ("#7f3b08", "#542788", "#1b7837", "#4d4d4d", "#b35806", "#2166ac", "#8c510a", "#762a83")
SPARE_MARKERS = ("<", ">", "p", "h", "X", "*", "d", "8")
PAPER_RATIO = 58.0  # MetaAPO's mean annotation ratio in the paper's first figure, in percent of Online DPO's
BINS = 24  # points of a curve through training: enough to see a bend, few enough to average over
STAGES = ("score", "sample", "annotate", "train")


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        name: stem of its files.
        section: where the page shows it: results, meta, training or costs.
        title: a few words.
        caption: what is shown, n, seeds, judge, intervals.
        alt: what a reader who cannot see it should know.
        figure: the drawing.
        data: what was drawn, one row a run and point; written beside the figure, so that every point leads to its run.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        return self.png()

    def png(self) -> bytes:
        """The figure as PNG, without a date, so that the same numbers give the same file."""
        return self._render("png", {"Software": None})

    def pdf(self) -> bytes:
        """The figure as PDF, without a date."""
        return self._render("pdf", {"CreationDate": None, "Producer": None, "Creator": None})

    def _render(self, kind: str, metadata: dict[str, None]) -> bytes:
        with plt.style.context(STYLE):
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format=kind, metadata=metadata)
            return buffer.getvalue()


def look_of(method: str, methods: Sequence[str]) -> dict[str, str]:
    """Colour and marker of a method, the same in every figure of an experiment."""
    if method in LOOKS:
        color, marker = LOOKS[method]
    else:
        place = [name for name in methods if name not in LOOKS].index(method)
        color, marker = SPARE_COLORS[place % len(SPARE_COLORS)], SPARE_MARKERS[place % len(SPARE_MARKERS)]
    return {"color": color, "marker": marker}


def _offset(results: Results, method: str) -> float:
    """Shift along an axis of iterations, so that methods with the same values do not cover each other."""
    methods = list(results.experiment.methods)
    return 0.3 * ((methods.index(method) + 0.5) / len(methods) - 0.5)


def mean_and_half_width(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t-interval; 0 where one seed gives none."""
    estimate = stats.mean_over_seeds(np.asarray(list(values), float))
    return estimate.value, estimate.high - estimate.value if estimate.stderr is not None else 0.0


# ---------------------------------------------------------------------------------------------------------------------
# Results


def budget(results: Results) -> Drawn | None:
    """The paper's first figure: win rate after each iteration against the annotations spent until then."""
    benchmark, metric = _headline(results)
    points = _spending(results, benchmark, metric)
    if not len(points):
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5), width_ratios=(1.7, 1))
    for method, own in results.main(points).groupby("method", sort=False):
        look = look_of(method, list(results.experiment.methods))
        _budget_curve(left, own, look, name_of(method))
        _ratio_curve(right, own, look, _offset(results, method))
    _baseline(left, results, benchmark, metric)
    left.set(xlabel="responses scored, % of Online DPO's total", ylabel=_label(benchmark, metric))
    left.set_title("Score against annotations spent")
    left.set_xlim(-6, max(106, left.get_xlim()[1]))
    right.set(xlabel="iteration", ylabel="responses scored, % of Online DPO's")
    right.set_title("Annotations of each iteration")
    right.axhline(PAPER_RATIO, color="#777777", linestyle=":", linewidth=1)
    right.text(
        0.98,
        PAPER_RATIO - 2,
        "58 % (paper)",
        color="#555555",
        fontsize=7,
        ha="right",
        va="top",
        transform=right.get_yaxis_transform(),
    )
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_ylim(-6, max(106, right.get_ylim()[1]))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        f"{NAMES[benchmark]}, {_words(metric)}, after each iteration (numbers) against the responses that the reward "
        "model had scored until then, from the annotation ledger, relative to Online DPO's total. "
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
        results.main(points)[[*SCORE_COLUMNS, "annotations", "spent", "ratio"]],
    )


def _spending(results: Results, benchmark: str, metric: str) -> pd.DataFrame:
    """One row per model: value, spent (% of Online DPO's total over the training), ratio (%, this iteration)."""
    frame = _scores(results, benchmark, metric)
    frame = frame[frame["method"] != "sft"]
    full = _full_annotations(results)
    return frame.assign(spent=100 * frame["annotations"] / full, ratio=100 * frame["annotation_ratio"])


def _full_annotations(results: Results) -> float:
    """Responses that Online DPO has scored over a whole training: K for every prompt."""
    prompts = max(sum(s["prompts"] for s in record["iterations"]) for record in results.records.values())
    return max(1, responses_per_prompt(results.experiment) * prompts)


def _budget_curve(axes: Axes, own: pd.DataFrame, look: dict[str, str], label: str) -> None:
    rows = []
    for iteration, cell in own.groupby("iteration"):
        (x, dx), (y, dy) = mean_and_half_width(cell["spent"]), mean_and_half_width(cell["value"])
        shift = 2.2 * (iteration - (own["iteration"].max() + 1) / 2) if own["spent"].max() == 0 else 0.0
        axes.plot(
            cell["spent"] + shift, cell["value"], linestyle="", alpha=0.28, markersize=3.5, markeredgewidth=0, **look
        )
        rows.append((iteration, x + shift, y, dx, dy))
    iteration, x, y, dx, dy = map(np.array, zip(*rows))
    axes.errorbar(
        x, y, yerr=dy, xerr=dx, label=label, elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.6, **look
    )
    for i, place, height in zip(iteration, x, y):
        axes.annotate(str(i), (place, height), (4, 4), textcoords="offset points", fontsize=7, color=look["color"])


def _ratio_curve(axes: Axes, own: pd.DataFrame, look: dict[str, str], offset: float) -> None:
    rows = [(i, *mean_and_half_width(cell["ratio"])) for i, cell in own.groupby("iteration")]
    iteration, ratio, width = map(np.array, zip(*rows))
    axes.errorbar(
        iteration + offset, ratio, yerr=width, elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.6, **look
    )


def _baseline(axes: Axes, results: Results, benchmark: str, metric: str) -> None:
    """The SFT policy's level: 50 % where it is the baseline of the comparison, else its own score."""
    sft = _scores(results, benchmark, metric)
    sft = sft[sft["method"] == "sft"]["value"]
    level = sft.mean() if len(sft) else (50.0 if results.baseline(benchmark) == "sft" else None)
    if level is not None:
        axes.axhline(level, color=LOOKS["sft"][0], linestyle="--", linewidth=1, label="SFT policy")


def _budget_alt(results: Results, points: pd.DataFrame) -> str:
    last = results.main(points)
    last = last[last["iteration"] == last["iteration"].max()].groupby("method", sort=False)[["value", "spent"]].mean()
    ends = "; ".join(f"{name_of(m)} {row.value:.1f} at {row.spent:.0f} %" for m, row in last.iterrows())
    return f"Scores after the last iteration at the share of Online DPO's annotations spent: {ends}."


def curves(results: Results) -> Drawn | None:
    """The raw score on every benchmark after each iteration."""
    benchmarks = [b for b in results.experiment.benchmarks if len(_scores(results, b, RAW[b]))]
    if not benchmarks:
        return None
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(2.5 * len(benchmarks) + 0.3, 3.1), squeeze=False)
    for place, benchmark in zip(axes[0], benchmarks):
        frame = results.main(_scores(results, benchmark, RAW[benchmark]))
        for method, own in frame[frame["method"] != "sft"].groupby("method", sort=False):
            rows = [(i, *mean_and_half_width(cell["value"])) for i, cell in own.groupby("iteration")]
            i, y, dy = map(np.array, zip(*rows))
            look = look_of(method, list(results.experiment.methods))
            place.errorbar(i + _offset(results, method), y, yerr=dy, label=name_of(method), elinewidth=0.9, **look)
        _baseline(place, results, benchmark, RAW[benchmark])
        place.set(xlabel="iteration", ylabel=_label(benchmark, RAW[benchmark], short=True))
        place.set_title(NAMES[benchmark])
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3 if len(benchmarks) > 1 else 2
    )
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
    """A forest plot of every comparison that the verdicts rest on."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for claim in results.claims:
        for part in claim["parts"]:
            if part["benchmark"] and part["ci_low"] is not None:
                entry = rows.setdefault((part["label"], part["benchmark"], part["metric"]), {**part, "claims": []})
                entry["claims"].append(claim["id"])
    panels = [p for p in ([r for r in rows.values() if r["unit"] == u] for u in ("points", "grade")) if p]
    if not panels:
        return None
    height = 0.24 * sum(map(len, panels)) + 0.55 * len(panels) + 0.5
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(6.8, height), height_ratios=[len(p) + 1 for p in panels], squeeze=False
    )
    for place, panel in zip(axes[:, 0], panels):
        for y, part in enumerate(panel):
            color = look_of(part["label"].split(" - ")[1], list(results.experiment.methods))["color"]
            place.plot([part["ci_low"], part["ci_high"]], [y, y], color=color, linewidth=1.6)
            place.plot([part["effect"]], [y], marker="o", color=color, markersize=5)
        place.axvline(0, color="#333333", linewidth=0.9)
        place.axvline(panel[0]["margin"], color="#777777", linewidth=0.9, linestyle=":")
        place.set_yticks(range(len(panel)), [_contrast_label(part) for part in panel])
        place.set_ylim(len(panel) - 0.4, -0.6)
        place.set_xlabel(
            "difference, points of win rate" if panel[0]["unit"] == "points" else "difference, MT-Bench grades"
        )
        place.grid(axis="y", visible=False)
    n_seeds = max(part["n_seeds"] for part in rows.values())
    judge = results.claims[0]["judge"]
    caption = (
        "Every comparison of scores behind the verdicts after the last iteration: difference and 95 % interval over "
        f"{n_seeds} seeds and the prompts together, paired, not yet corrected for their number (the verdicts are). "
        f"Dotted: the smallest gain that would matter. Judge: {judge}. In brackets: the claims that a comparison "
        "belongs to. 'Overall' is the mean of the benchmarks' raw scores on 0 to 100."
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


def _contrast_label(part: dict[str, Any]) -> str:
    better, worse = part["label"].split(" - ")
    short = {"length_controlled_winrate": "LC", "style_controlled_win_rate": "SC", "win_rate": "WR"}.get(
        part["metric"], ""
    )
    where = "overall" if part["benchmark"] == "overall" else f"{NAMES[part['benchmark']]} {short}".strip()
    return f"{name_of(better)} − {name_of(worse)}, {where} ({', '.join(part['claims'])})"


def sweep(results: Results) -> Drawn | None:
    """Final score against measured budget for methods that were trained at several budgets."""
    benchmark, metric = _headline(results)
    points = _spending(results, benchmark, metric)
    swept = [name for name, method in results.experiment.methods.items() if len(method.budget) > 1]
    if not swept or not len(points):
        return None
    last = points[points["iteration"] == results.experiment.iterations]
    figure, axes = plt.subplots(figsize=(5.2, 3.5))
    for method, own in last.groupby("method", sort=False):
        cells = [(mean_and_half_width(c["spent"]), mean_and_half_width(c["value"])) for _, c in own.groupby("budget")]
        (x, dx), (y, dy) = (np.array(side).T for side in zip(*sorted(cells)))
        axes.errorbar(
            x, y, xerr=dx, yerr=dy, label=name_of(method), **look_of(method, list(results.experiment.methods))
        )
    _baseline(axes, results, benchmark, metric)
    axes.set(xlabel="responses scored, % of Online DPO's total", ylabel=_label(benchmark, metric))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = (
        f"{NAMES[benchmark]}, {_words(metric)}, after the last iteration, at every budget that was trained. "
        f"Horizontal: what the ledger measured, not the cap. {_provenance(results, benchmark)} Bars: 95 % "
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
    shown = ["metaapo", *variants, *[n for n in ("random", "online_dpo") if n in methods]]
    benchmarks = results.experiment.benchmarks
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(2.2 * len(benchmarks) + 1.4, 0.27 * len(shown) + 1.1), sharey=True, squeeze=False
    )
    for place, benchmark in zip(axes[0], benchmarks):
        frame = results.natural(_scores(results, benchmark, RAW[benchmark]))
        frame = frame[frame["iteration"] == results.experiment.iterations]
        for y, method in enumerate(shown):
            own = frame[frame["method"] == method]["value"]
            if len(own):
                value, width = mean_and_half_width(own)
                place.errorbar(value, y, xerr=width, **look_of(method, list(results.experiment.methods)))
                if method == "metaapo":
                    place.axvline(value, color=LOOKS["metaapo"][0], linewidth=0.8, linestyle=":")
        place.set_yticks(range(len(shown)), [name_of(method) for method in shown])
        place.set_ylim(len(shown) - 0.5, -0.5)
        place.set_xlabel(_label(benchmark, RAW[benchmark], short=True))
        place.set_title(NAMES[benchmark])
    caption = (
        "MetaAPO with one part changed, and the controls, after the last iteration. "
        f"{_provenance(results, *benchmarks)} Bars: 95 % t-intervals over seeds (the paired comparisons are in the "
        "verdicts)."
    )
    data = _raw_scores(results, results.natural(results.scores))
    data = data[data["method"].isin(shown) & (data["iteration"] == results.experiment.iterations)]
    return Drawn("ablations", "results", "Ablations and controls", caption, "Dot chart of variants.", figure, data)


def judges(results: Results) -> Drawn | None:
    """Scores of the same answers under two judges, with the rank correlation."""
    names = results.experiment.judges
    if len(names) < 2:
        return None
    benchmarks = results.experiment.benchmarks
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(2.5 * len(benchmarks), 2.9), squeeze=False)
    for place, benchmark in zip(axes[0], benchmarks):
        a, b = (_model_scores(results, benchmark, judge) for judge in names[:2])
        both = a.index.intersection(b.index)
        for method, own in a[both].groupby("method", sort=False):
            if method != "sft":
                look = look_of(method, list(results.experiment.methods))
                place.plot(own, b[own.index], linestyle="", alpha=0.7, label=name_of(method), **look)
        place.set(xlabel=f"judge {names[0]}", ylabel=f"judge {names[1]}")
        tau = stats.kendall_tau(a[both], b[both]) if a[both].nunique() > 1 < b[both].nunique() else None
        place.set_title(NAMES[benchmark])
        if tau:
            text = f"τ = {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
            place.text(0.02, 0.98, text, transform=place.transAxes, va="top", fontsize=7)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        f"Each point is a model (method, seed, iteration); the same answers under the judges {names[0]} and "
        f"{names[1]}. Kendall's tau with its 95 % interval over models. No table mixes judges."
    )
    data = results.scores[results.scores["metric"] == results.scores["benchmark"].map(RAW)][[*SCORE_COLUMNS, "judge"]]
    alt = "Scatter of scores under two judges."
    return Drawn("judges", "results", "Agreement of judges", caption, alt, figure, data)


def _model_scores(results: Results, benchmark: str, judge: str) -> pd.Series:
    frame = results.scores
    frame = frame[(frame["benchmark"] == benchmark) & (frame["metric"] == RAW[benchmark]) & (frame["judge"] == judge)]
    return frame.set_index([*KEYS, "iteration"])["value"]


# ---------------------------------------------------------------------------------------------------------------------
# The meta-learner


def meta_map(results: Results) -> Drawn | None:
    """h_phi at the start of training and after each iteration, over the histogram of the scores that it met."""
    maps = results.natural(results.maps)
    if not len(maps):
        return None
    methods = list(dict.fromkeys(maps["method"]))[:3]
    figure, axes = plt.subplots(
        2, len(methods), figsize=(max(4.6, 3.0 * len(methods)), 4.3), sharex=True, height_ratios=(2, 1), squeeze=False
    )
    ledger = results.natural(results.annotations)
    low = 0.0
    for column, method in zip(axes.T, methods):
        own = maps[maps["method"] == method]
        scores = ledger[ledger["method"] == method]
        _draw_maps(column[0], own)
        _draw_histogram(column[1], scores, results.experiment.iterations)
        low = min(low, float(scores["offline_score"].quantile(0.002)))
        column[0].set_title(name_of(method))
        column[1].set_xlabel("score of the offline pair, log σ(βΔ), nats")
    axes[0][0].set_ylabel(r"weight $w = h_\phi$(score)")
    axes[1][0].set_ylabel("share of pairs")
    for place in axes[0]:
        place.set_ylim(0, 1)
        place.set_xlim(max(low * 1.1, maps["score"].min()), 0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * len(methods))
    seeds = maps["seed"].nunique()
    caption = (
        "The meta-learner's map at the start of training and after each iteration; thick: mean, thin: each of "
        f"{seeds} seeds. A prompt is sampled online with probability 1 − w. Below: the scores of the offline pairs "
        "when each iteration met them, in the same colours. Where no score falls, the map was never trained."
    )
    return Drawn("meta_map", "meta", "What the meta-learner learned", caption, _map_alt(maps), figure, maps)


def _shades(n: int) -> list[tuple[float, float, float, float]]:
    """Dark to light colours for the start and n iterations, ordered also in grey and for colour-blind readers."""
    return [plt.get_cmap("cividis")(x) for x in np.linspace(0.0, 0.85, n + 1)]


def _draw_maps(axes: Axes, maps: pd.DataFrame) -> None:
    colors = _shades(int(maps["iteration"].max()))
    for iteration, curves in maps.groupby("iteration"):
        style = "--" if iteration == 0 else "-"
        for _, curve in curves.groupby("seed"):
            axes.plot(curve["score"], curve["weight"], style, color=colors[iteration], linewidth=0.6, alpha=0.5)
        mean = curves.groupby("score")["weight"].mean()
        label = "start" if iteration == 0 else f"after iteration {iteration}"
        axes.plot(mean.index, mean, style, color=colors[iteration], linewidth=2, label=label)


def _draw_histogram(axes: Axes, scores: pd.DataFrame, iterations: int) -> None:
    colors = _shades(iterations)
    low = float(scores["offline_score"].quantile(0.002))
    bins = np.linspace(min(low, -0.1), 0, 41)
    for iteration, own in scores.groupby("iteration"):
        weights = np.full(len(own), 1 / len(own))
        values = own["offline_score"].clip(lower=bins[0])
        axes.hist(values, bins, weights=weights, histtype="step", linewidth=1.3, color=colors[int(iteration)])


def _map_alt(maps: pd.DataFrame) -> str:
    first, last = maps["iteration"].min(), maps["iteration"].max()
    at = maps[maps["score"].round(6) == -1.0].groupby("iteration")["weight"].mean()
    return f"Weight at score -1: {at.get(first, np.nan):.2f} at the start, {at.get(last, np.nan):.2f} after training."


def sampling_rate(results: Results) -> Drawn | None:
    """Share of prompts sampled online, by iteration and by task."""
    frame = results.main(results.iterations)
    chosen = [m for m, own in frame.groupby("method", sort=False) if 0 < own["sampling_rate"].mean() < 1]
    if not chosen:
        return None
    ledger = results.natural(results.annotations)
    by_task = ledger[ledger["method"].isin(chosen[:1])]
    tasks = by_task["task"].nunique() > 1 if "task" in by_task else False
    figure, axes = plt.subplots(1, 2 if tasks else 1, figsize=(7.0 if tasks else 3.8, 3.2), squeeze=False)
    for method in chosen:
        own = frame[frame["method"] == method]
        rows = [(i, *mean_and_half_width(100 * cell["sampling_rate"])) for i, cell in own.groupby("iteration")]
        i, y, dy = map(np.array, zip(*rows))
        look = look_of(method, list(results.experiment.methods))
        i, faint = i + _offset(results, method), own["iteration"] + _offset(results, method)
        axes[0][0].errorbar(i, y, yerr=dy, label=name_of(method), **look)
        axes[0][0].plot(faint, 100 * own["sampling_rate"], linestyle="", alpha=0.3, markersize=3.5, **look)
    axes[0][0].set(xlabel="iteration", ylabel="prompts sampled online, %", ylim=(0, 102))
    axes[0][0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].legend(loc="lower left")
    if tasks:
        _rate_by_task(axes[0][1], by_task, chosen[0])
    caption = (
        f"Left: share of prompts that got online samples; bars: 95 % t-intervals over {frame['seed'].nunique()} seeds. "
        + (f"Right: {name_of(chosen[0])}'s sampling by task, all seeds." if tasks else "")
    )
    data = frame[frame["method"].isin(chosen)][[*KEYS, "iteration", "prompts", "sampled", "sampling_rate"]]
    alt = _rate_alt(frame, chosen)
    return Drawn("sampling_rate", "meta", "Sampling rate by iteration", caption, alt, figure, data)


def _rate_by_task(axes: Axes, ledger: pd.DataFrame, method: str) -> None:
    rates = 100 * ledger.groupby(["task", "iteration"])["sampled"].mean().unstack()
    rates = rates.sort_values(rates.columns[0])
    colors = _shades(int(rates.columns.max()))
    for iteration in rates.columns:
        axes.plot(
            rates[iteration], range(len(rates)), "o", color=colors[int(iteration)], label=f"iteration {iteration}"
        )
    axes.set_yticks(range(len(rates)), rates.index)
    axes.set(xlabel="prompts sampled online, %", xlim=(0, 102))
    axes.set_title(f"{name_of(method)}, by task")
    axes.legend(loc="lower left")


def _rate_alt(frame: pd.DataFrame, chosen: list[str]) -> str:
    rates = frame[frame["method"].isin(chosen)].groupby(["method", "iteration"])["sampling_rate"].mean().unstack()
    return "; ".join(f"{name_of(m)}: " + ", ".join(f"{100 * x:.0f} %" for x in row) for m, row in rates.iterrows())


# ---------------------------------------------------------------------------------------------------------------------
# Training


def training(results: Results) -> Drawn | None:
    """Offline and online loss, and the weight of the offline pair, through training."""
    columns = {
        "offline_loss": "offline loss, nats",
        "online_loss": "online loss, nats",
        "meta_weight": "mean weight of the offline pair",
        "grad_norm": "gradient norm",
    }
    return _progress_figure(
        results,
        results.training,
        {c: label for c, label in columns.items() if c in results.training},
        "training",
        "Losses and weights through training",
        "Means over seeds of the training log in bins of steps; bands: smallest and largest seed.",
    )


def reinforcement(results: Results) -> Drawn | None:
    """The signs by which PPO is known to fail, through training."""
    columns = {
        "kl": "KL to the reference, nats",
        "entropy": "entropy, nats a token",
        "clip_fraction": "share of tokens clipped",
        "explained_variance": "explained variance of values",
        "eos_rate": "responses that end",
        "length": "length, tokens",
    }
    frame = results.training
    if "entropy" not in frame:
        return None
    return _progress_figure(
        results,
        frame[frame["entropy"].notna()],
        {column: label for column, label in columns.items() if column in frame},
        "reinforcement",
        "PPO's vital signs",
        "Means over seeds of the training log in bins of steps; bands: smallest and largest seed.",
    )


def drift(results: Results) -> Drawn | None:
    """KL, length, proxy reward and gold reward of the policy's own samples through training."""
    probes = results.probes
    if "kl" not in probes:
        return None
    gold = results.probe_gold
    columns = {"kl": "KL to the SFT policy, nats", "tokens": "length, tokens", "reward": "reward model's score (proxy)"}
    if gold is not None:
        probes, columns = probes.assign(gold=gold), columns | {"gold": "gold reward"}
    n = probes.groupby([*KEYS, "iteration", "step"]).size().median()
    return _progress_figure(
        results,
        probes,
        columns,
        "drift",
        "How far the policy moves, and what it gains",
        f"{n:.0f} sampled responses a probe; means over seeds; bands: smallest and largest seed. The proxy is what "
        "training optimises; where it rises and the gold reward falls, the reward model is being exploited.",
    )


def _progress_figure(
    results: Results, frame: pd.DataFrame, columns: dict[str, str], name: str, title: str, how: str
) -> Drawn | None:
    if not len(frame) or not columns:
        return None
    frame = results.main(frame)
    rows = math.ceil(len(columns) / 2)
    figure, axes = plt.subplots(rows, 2, figsize=(7.0, 2.2 * rows + 0.5), squeeze=False)
    for place, (column, label) in zip(axes.flat, columns.items()):
        for method, own in frame.groupby("method", sort=False):
            _progress_curve(place, own, column, look_of(method, list(results.experiment.methods)), name_of(method))
        for t in range(1, results.experiment.iterations):
            place.axvline(t, color="#bbbbbb", linewidth=0.8)
        place.set(xlabel="iterations done", ylabel=label)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place in axes.flat[len(columns) :]:
        place.set_axis_off()
    handles = {text: handle for place in axes.flat for handle, text in zip(*place.get_legend_handles_labels())}
    order = [name for name in map(name_of, results.experiment.methods) if name in handles]
    figure.legend([handles[name] for name in order], order, loc="outside lower center", ncols=4)
    seeds = frame["seed"].nunique()
    data = frame.groupby([*KEYS, "iteration", "step"], sort=False)[list(columns)].mean().reset_index()
    alt = f"Line charts of {', '.join(columns)}."
    return Drawn(name, "training", title, f"{how} {seeds} seeds.", alt, figure, data)


def _progress_curve(axes: Axes, own: pd.DataFrame, column: str, look: dict[str, str], label: str) -> None:
    """Mean over seeds of a column in bins of progress, with the seeds' range."""
    own = own[own[column].notna()]
    if not len(own):
        return
    points = own["progress"].nunique()
    progress = own["progress"].round(6)
    if points > BINS * 2:
        last = np.ceil(own["progress"].max())
        progress = (np.floor(own["progress"] * BINS / last - 1e-9) + 0.5) * last / BINS
    table = own.groupby([progress, own["seed"]])[column].mean().unstack()
    line = {"color": look["color"], "linewidth": 1.5}
    marked = {"marker": look["marker"], "markevery": max(1, len(table) // 6), "markersize": 4}
    axes.plot(table.index, table.mean(axis=1), label=label, **line, **marked)
    axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=look["color"], alpha=0.15, linewidth=0)


def overoptimisation(results: Results) -> Drawn | None:
    """Proxy and gold reward against the square root of KL, in the manner of Gao et al. (2022), figure 1."""
    gold = results.probe_gold
    if gold is None:
        return None
    frame = results.main(results.probes.assign(gold=gold))
    cells = frame.groupby([*KEYS, "iteration", "step"], sort=False)[["kl", "reward", "gold"]].mean().reset_index()
    cells["distance"] = np.sqrt(cells["kl"].clip(lower=0))
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.3))
    for method, own in cells.groupby("method", sort=False):
        look = look_of(method, list(results.experiment.methods))
        mean = own.groupby(["iteration", "step"])[["distance", "reward", "gold"]].mean()
        for place, column in zip(axes, ("reward", "gold")):
            place.plot(own["distance"], own[column], linestyle="", alpha=0.25, markersize=3.5, **look)
            place.plot(mean["distance"], mean[column], label=name_of(method), markersize=4, **look)
    axes[0].set(xlabel="√KL to the SFT policy", ylabel="reward model's score (proxy)")
    axes[1].set(xlabel="√KL to the SFT policy", ylabel="gold reward")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        "Proxy and gold reward of sampled responses against the distance from the SFT policy, along training "
        f"(faint: single seeds, {cells['seed'].nunique()} of them). After Gao et al. (2022): a proxy that goes on "
        "rising where gold turns down is over-optimised."
    )
    alt = "Rewards against distance."
    return Drawn("overoptimisation", "training", "Over-optimisation", caption, alt, figure, cells)


# ---------------------------------------------------------------------------------------------------------------------
# Costs


def costs(results: Results) -> Drawn | None:
    """Seconds by stage and responses scored, per method."""
    frame = results.natural(results.iterations)
    stages = [stage for stage in STAGES if f"seconds_{stage}" in frame]
    if not stages:
        return None
    totals = frame.groupby(["method", "seed"], sort=False)[
        [f"seconds_{s}" for s in stages] + ["responses_scored"]
    ].sum()
    means = totals.groupby("method", sort=False).mean()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.0, 0.33 * len(means) + 1.5), sharey=True, width_ratios=(1.6, 1)
    )
    start = np.zeros(len(means))
    greys = ("#222222", "#0072B2", "#56B4E9", "#E69F00")
    for stage, color in zip(stages, greys):
        left.barh(range(len(means)), means[f"seconds_{stage}"], left=start, color=color, label=stage, height=0.6)
        start = start + means[f"seconds_{stage}"].to_numpy()
    right.barh(range(len(means)), means["responses_scored"], color="#777777", height=0.6)
    left.set_yticks(range(len(means)), [name_of(method) for method in means.index])
    left.invert_yaxis()
    left.set(xlabel="seconds a run")
    right.set(xlabel="responses scored a run")
    right.xaxis.set_major_locator(MaxNLocator(nbins=4))
    for place in (left, right):
        place.grid(axis="y", visible=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        f"Mean over {frame['seed'].nunique()} seeds; wall time of a training run by stage, on its own machine, "
        "and responses scored by the reward model."
    )
    return Drawn(
        "costs",
        "costs",
        "Time and annotations per method",
        caption,
        "Bar charts; the numbers are in the costs table.",
        figure,
        totals.reset_index().assign(
            budget=lambda f: f["method"].map(lambda m: str(max(results.experiment.methods[m].budget)))
        ),
    )


# ---------------------------------------------------------------------------------------------------------------------

SCORE_COLUMNS = [*KEYS, "iteration", "benchmark", "value", "n"]
RAW = {"alpacaeval2": "win_rate", "arenahard": "win_rate", "mtbench": "average"}
FIGURES: tuple[Callable[[Results], Drawn | None], ...] = (
    *(budget, curves, contrasts, sweep, ablations, judges),
    *(meta_map, sampling_rate),
    *(training, drift, overoptimisation, reinforcement),
    costs,
)


def draw(results: Results, figures: Sequence[Callable[[Results], Drawn | None]] = FIGURES) -> list[Drawn]:
    """All figures that the experiment has data for."""
    with plt.style.context(STYLE):
        made = [drawn for drawn in (figure(results) for figure in figures) if drawn is not None]
    for drawn in made:
        plt.close(drawn.figure)  # pyplot forgets it; it can still be saved
    return made


def save(drawn: Drawn, folder: Path) -> bytes:
    """Write NAME.png, NAME.pdf and NAME.data.csv into `folder`; returns the PNG."""
    png = drawn.png()
    write_bytes(folder / f"{drawn.name}.png", png)
    write_bytes(folder / f"{drawn.name}.pdf", drawn.pdf())
    write_text(folder / f"{drawn.name}.data.csv", _with_runs(drawn.data).to_csv(index=False, lineterminator="\n"))
    return png


def _with_runs(data: pd.DataFrame) -> pd.DataFrame:
    """The run's id instead of its parts, where the rows belong to runs."""
    if not set(KEYS) <= set(data):
        return data
    keys = zip(data["method"], data["budget"], data["seed"])
    runs = [f"{method}/budget{budget}/seed{seed}" for method, budget, seed in keys]
    return data.drop(columns=KEYS).assign(run=runs)


def _raw_scores(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """Raw scores of trained models under the first judge."""
    chosen = (frame["metric"] == frame["benchmark"].map(RAW)) & (frame["judge"] == results.experiment.judges[0])
    return frame[chosen & (frame["method"] != "sft")][SCORE_COLUMNS]


def _headline(results: Results) -> tuple[str, str]:
    """AlpacaEval 2's raw win rate as in the paper's first figure; the first benchmark where it was not run."""
    names = results.experiment.benchmarks
    benchmark = "alpacaeval2" if "alpacaeval2" in names else names[0]
    return benchmark, RAW[benchmark]


def _scores(results: Results, benchmark: str, metric: str) -> pd.DataFrame:
    """Scores on one metric under the first judge."""
    frame = results.scores
    first = results.experiment.judges[0]
    return frame[(frame["benchmark"] == benchmark) & (frame["metric"] == metric) & (frame["judge"] == first)]


def _words(metric: str) -> str:
    return {"win_rate": "raw win rate", "average": "mean grade"}.get(metric, metric.replace("_", " "))


def _label(benchmark: str, metric: str, short: bool = False) -> str:
    if benchmark == "mtbench":
        return "mean grade (1 to 10)"
    return f"{_words(metric)}, %" if short else f"{NAMES[benchmark]} {_words(metric)}, %"


def _provenance(results: Results, *benchmarks: str) -> str:
    """n, seeds and judge of the scores in a figure, as a sentence."""
    frame = results.scores
    frame = frame[frame["benchmark"].isin(benchmarks) & (frame["judge"] == results.experiment.judges[0])]
    counts = " and ".join(dict.fromkeys(str(n) for n in sorted(frame["n"].unique())))
    n = counts if frame["n"].nunique() <= 2 else f"{frame['n'].min()} to {frame['n'].max()}"
    seeds = frame[frame["method"] != "sft"].groupby("method")["seed"].nunique()
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    versions = ", ".join(dict.fromkeys(frame["version"].astype(str)))
    return f"n = {n} prompts, {span} seeds, judge: {results.experiment.judges[0]} (protocol {versions})."
