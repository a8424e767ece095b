"""Figures of the runs themselves: the meta-learner, sampling, losses, drift and costs.

Training curves are means over seeds; bands range from the smallest to the largest seed.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.drawing import Drawn, label_ends, look_of, mean_and_half_width, offset, panel_height, shades
from reports.mechanism import METHOD
from reports.runs import KEYS, Results
from reports.tables import name_of

BINS = 24  # points of a training curve: enough to see a bend, few enough to average over
STAGES = ("score", "sample", "annotate", "train")


def meta_map(results: Results) -> Drawn | None:
    """h_phi at the start of training and after each iteration, over the histogram of the scores that it saw."""
    maps = results.at_full_budget(results.maps)
    if not len(maps):
        return None
    methods = list(dict.fromkeys(maps["method"]))[:3]
    figure, axes = plt.subplots(
        2, len(methods), figsize=(4.1 * len(methods), 4.9), height_ratios=(1.7, 1), squeeze=False
    )
    ledger = results.at_full_budget(results.annotations)
    for (upper, lower), method in zip(axes.T, methods):
        group = maps[maps["method"] == method]
        scores = ledger[ledger["method"] == method]
        low = min(0.0, float(scores["offline_score"].quantile(0.002)))
        for ax in (upper, lower):
            ax.set(xlim=(max(low * 1.1, maps["score"].min()), 0), xlabel="score of the offline pair, log σ(βΔ), nats")
        upper.set(ylim=(0, 1), ylabel="weight w = hφ(score)")
        upper.set_title(f"{name_of(method)}: the map")
        # a policy equal to its reference scores every pair log 1/2: one spike next to a wide curve
        lower.set(yscale="log", ylim=(0.1, 150), ylabel="pairs, %")
        lower.yaxis.set_major_formatter("{x:g}")
        lower.set_title(f"{name_of(method)}: the scores that it saw")
        _draw_maps(upper, group)
        _draw_histogram(lower, scores, results.experiment.iterations)
    seeds = maps["seed"].nunique()
    caption = (
        "The meta-learner's map at the start of training and after each iteration; thick: mean, thin: each of "
        f"{seeds} seeds. A prompt is sampled online with probability 1 − w. Below: the scores of the offline pairs "
        "when each iteration saw them, in the same colours. Where there are no scores, the map was never trained."
    )
    return Drawn("meta_map", "meta", "What the meta-learner learned", caption, _map_alt(maps), figure, maps)


def _draw_maps(axes: Axes, maps: pd.DataFrame) -> None:
    colors = shades(int(maps["iteration"].max()))
    ends = []
    for iteration, curves in maps.groupby("iteration"):
        style = "--" if iteration == 0 else "-"
        for _, curve in curves.groupby("seed"):
            axes.plot(curve["score"], curve["weight"], style, color=colors[iteration], linewidth=0.6, alpha=0.5)
        mean = curves.groupby("score")["weight"].mean()
        axes.plot(mean.index, mean, style, color=colors[iteration], linewidth=2)
        name = "start" if iteration == 0 else f"after iteration {iteration}"
        ends.append((float(mean.index[-1]), float(mean.iloc[-1]), name, {"color": colors[iteration]}))
    label_ends(axes, ends)


def _draw_histogram(axes: Axes, scores: pd.DataFrame, iterations: int) -> None:
    colors = shades(iterations)
    bins = np.linspace(min(axes.get_xlim()[0], -0.1), 0, 41)
    ends = []
    for iteration, group in scores.groupby("iteration"):
        weights = np.full(len(group), 100 / len(group))
        values = group["offline_score"].clip(lower=bins[0])
        counts, *_ = axes.hist(
            values, bins, weights=weights, histtype="step", linewidth=1.3, color=colors[int(iteration)]
        )
        ends.append((0.0, max(float(counts[-1]), 0.1), f"iteration {iteration}", {"color": colors[int(iteration)]}))
    label_ends(axes, ends)


def _map_alt(maps: pd.DataFrame) -> str:
    first, last = maps["iteration"].min(), maps["iteration"].max()
    at = maps[maps["score"].round(6) == -1.0].groupby("iteration")["weight"].mean()
    return f"Weight at score -1: {at.get(first, np.nan):.2f} at the start, {at.get(last, np.nan):.2f} after training."


def sampling_rate(results: Results) -> Drawn | None:
    """Share of prompts sampled online, by iteration and by task."""
    frame = results.main(results.iterations)
    chosen = [m for m, group in frame.groupby("method", sort=False) if 0 < group["sampling_rate"].mean() < 1]
    if not chosen:
        return None
    shown = METHOD if METHOD in chosen else chosen[0]
    ledger = results.at_full_budget(results.annotations)
    by_task = ledger[ledger["method"] == shown]
    tasks = by_task["task"].nunique() if "task" in by_task else 0
    panels = 2 if tasks > 1 else 1
    size = (3.9 * panels, panel_height(max(len(chosen), tasks), 3.0))
    figure, axes = plt.subplots(1, panels, figsize=size, squeeze=False)
    ends = []
    for method in chosen:
        group = frame[frame["method"] == method]
        rows = [(i, *mean_and_half_width(100 * cell["sampling_rate"])) for i, cell in group.groupby("iteration")]
        i, y, dy = map(np.array, zip(*rows))
        look = look_of(method, list(results.experiment.methods))
        i, faint = i + offset(results, method), group["iteration"] + offset(results, method)
        axes[0][0].errorbar(i, y, yerr=dy, **look)
        axes[0][0].plot(faint, 100 * group["sampling_rate"], linestyle="", alpha=0.3, markersize=3.5, **look)
        ends.append((i[-1], y[-1], name_of(method), look))
    axes[0][0].set(xlabel="iteration", ylabel="prompts sampled online, %", ylim=(0, 102))
    axes[0][0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_title("Sampled online")
    label_ends(axes[0][0], ends)
    if tasks > 1:
        _rate_by_task(axes[0][1], by_task, shown)
    caption = (
        f"Left: share of prompts sampled online; bars: 95 % t-intervals over {frame['seed'].nunique()} seeds. "
        + (f"Right: {name_of(shown)}'s sampling by task, mean over seeds." if tasks > 1 else "")
    )
    data = frame[frame["method"].isin(chosen)][[*KEYS, "iteration", "prompts", "sampled", "sampling_rate"]]
    alt = _rate_alt(frame, chosen)
    return Drawn("sampling_rate", "meta", "Sampling rate by iteration", caption, alt, figure, data)


def _rate_by_task(axes: Axes, ledger: pd.DataFrame, method: str) -> None:
    rates = 100 * ledger.groupby(["task", "iteration"])["sampled"].mean().unstack()
    rates = rates.sort_values(rates.columns[-1])
    ends = []
    for color, (task, row) in zip(shades(len(rates) - 1), rates.iterrows()):
        axes.plot(row.index, row, "o-", color=color, markersize=3.5)
        ends.append((float(row.index[-1]), float(row.iloc[-1]), str(task), {"color": color}))
    axes.set(xlabel="iteration", ylabel="prompts sampled online, %", ylim=(0, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{name_of(method)}, by task")
    label_ends(axes, ends)


def _rate_alt(frame: pd.DataFrame, chosen: list[str]) -> str:
    rates = frame[frame["method"].isin(chosen)].groupby(["method", "iteration"])["sampling_rate"].mean().unstack()
    return "; ".join(f"{name_of(m)}: " + ", ".join(f"{100 * x:.0f} %" for x in row) for m, row in rates.iterrows())


def training(results: Results) -> Drawn | None:
    """Offline and online loss, and the weight of the offline pair, during training."""
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
        "Losses and weights during training",
        "Training logs averaged over seeds in bins of steps; bands: smallest and largest seed.",
    )


def reinforcement(results: Results) -> Drawn | None:
    """Known signs of PPO failures, during training."""
    columns = {
        "kl": "KL to the reference, nats",
        "entropy": "entropy, nats per token",
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
        "Training logs averaged over seeds in bins of steps; bands: smallest and largest seed.",
    )


def drift(results: Results) -> Drawn | None:
    """KL, length, proxy reward and gold reward of the policy's samples during training."""
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
        f"{n:.0f} sampled responses per probe; means over seeds; bands: smallest and largest seed. Training "
        "optimises the proxy; where it rises while the gold reward falls, the reward model is being exploited.",
    )


def _progress_figure(
    results: Results, frame: pd.DataFrame, columns: dict[str, str], name: str, title: str, how: str
) -> Drawn | None:
    if not len(frame) or not columns:
        return None
    frame = results.main(frame)
    rows = math.ceil(len(columns) / 2)
    height = panel_height(frame["method"].nunique(), 2.3)
    figure, axes = plt.subplots(rows, 2, figsize=(7.8, height * rows), squeeze=False)
    for ax, (column, label) in zip(axes.flat, columns.items()):
        ends = []
        for method, group in frame.groupby("method", sort=False):
            look = look_of(method, list(results.experiment.methods))
            last = _progress_curve(ax, group, column, look)
            ends += [(*last, name_of(method), look)] if last else []
        for t in range(1, results.experiment.iterations):
            ax.axvline(t, color="#bbbbbb", linewidth=0.8)
        ax.set(xlabel="iterations done", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_ends(ax, ends)
    for ax in axes.flat[len(columns) :]:
        ax.set_axis_off()
    seeds = frame["seed"].nunique()
    data = frame.groupby([*KEYS, "iteration", "step"], sort=False)[list(columns)].mean().reset_index()
    alt = f"Line charts of {', '.join(columns)}."
    return Drawn(name, "training", title, f"{how} {seeds} seeds.", alt, figure, data)


def _progress_curve(axes: Axes, group: pd.DataFrame, column: str, look: dict[str, str]) -> tuple[float, float] | None:
    """Mean over seeds of a column in bins of progress, with the seeds' range; returns the last point, if any."""
    group = group[group[column].notna()]
    if not len(group):
        return None
    points = group["progress"].nunique()
    progress = group["progress"].round(6)
    if points > BINS * 2:
        last = np.ceil(group["progress"].max())
        progress = (np.floor(group["progress"] * BINS / last - 1e-9) + 0.5) * last / BINS
    table = group.groupby([progress, group["seed"]])[column].mean().unstack()
    line = {"color": look["color"], "linewidth": 1.5}
    marked = {"marker": look["marker"], "markevery": max(1, len(table) // 6), "markersize": 4}
    mean = table.mean(axis=1)
    axes.plot(mean.index, mean, **line, **marked)
    axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=look["color"], alpha=0.15, linewidth=0)
    return float(mean.index[-1]), float(mean.iloc[-1])


def overoptimisation(results: Results) -> Drawn | None:
    """Proxy and gold reward against the square root of KL, as in Gao et al. (2022), figure 1."""
    gold = results.probe_gold
    if gold is None:
        return None
    frame = results.main(results.probes.assign(gold=gold))
    cells = frame.groupby([*KEYS, "iteration", "step"], sort=False)[["kl", "reward", "gold"]].mean().reset_index()
    cells["distance"] = np.sqrt(cells["kl"].clip(lower=0))
    figure, axes = plt.subplots(1, 2, figsize=(7.8, panel_height(cells["method"].nunique(), 3.0)))
    ends: dict[str, list[tuple[float, float, str, dict[str, str]]]] = {"reward": [], "gold": []}
    for method, group in cells.groupby("method", sort=False):
        look = look_of(method, list(results.experiment.methods))
        mean = group.groupby(["iteration", "step"])[["distance", "reward", "gold"]].mean()
        for ax, column in zip(axes, ("reward", "gold")):
            ax.plot(group["distance"], group[column], linestyle="", alpha=0.25, markersize=3.5, **look)
            ax.plot(mean["distance"], mean[column], markersize=4, **look)
            ends[column].append((mean["distance"].iloc[-1], mean[column].iloc[-1], name_of(method), look))
    axes[0].set(xlabel="√KL to the SFT policy", ylabel="reward model's score (proxy)")
    axes[1].set(xlabel="√KL to the SFT policy", ylabel="gold reward")
    for ax, column in zip(axes, ends):
        label_ends(ax, ends[column])
    caption = (
        "Proxy and gold reward of sampled responses against the distance from the SFT policy, during training "
        f"(faint: single seeds, {cells['seed'].nunique()} of them). After Gao et al. (2022): where the proxy keeps "
        "rising while the gold reward falls, it is over-optimised."
    )
    alt = "Rewards against distance."
    return Drawn("overoptimisation", "training", "Over-optimisation", caption, alt, figure, cells)


def costs(results: Results) -> Drawn | None:
    """Seconds by stage and responses scored, per method."""
    frame = results.at_full_budget(results.iterations)
    stages = [stage for stage in STAGES if f"seconds_{stage}" in frame]
    if not stages:
        return None
    totals = frame.groupby(["method", "seed"], sort=False)[
        [f"seconds_{s}" for s in stages] + ["responses_scored"]
    ].sum()
    means = totals.groupby("method", sort=False).mean()
    shown = {f"seconds_{stage}": f"seconds per run: {stage}" for stage in stages}
    means = means.assign(seconds=means[list(shown)].sum(axis=1))
    shown = {"seconds": "seconds per run", **shown, "responses_scored": "responses scored per run"}
    height = 0.22 * len(means) + 0.8
    rows = math.ceil(len(shown) / 2)
    figure, axes = plt.subplots(rows, 2, figsize=(7.4, height * rows), squeeze=False)
    names = [name_of(method) for method in means.index]
    for ax, (column, title) in zip(axes.flat, shown.items()):
        ax.barh(range(len(means)), means[column], color="#777777", height=0.6)
        ax.set_yticks(range(len(means)), names)
        ax.invert_yaxis()
        ax.set_title(title)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
        ax.grid(axis="y", visible=False)
        if column != "responses_scored":
            ax.set_xlim(0, means["seconds"].max() * 1.03)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    caption = (
        f"Mean over {frame['seed'].nunique()} seeds; wall time of a training run by stage, each on its own "
        "machine, and responses scored by the reward model."
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
