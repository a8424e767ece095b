"""Where does adaptive selection matter? The phase diagram, from a series of experiments (docs/phase.md).

    python -m reports.phase --config config/phase.yaml --at-once 2 --out docs/results/phase
    python -m reports.phase --kept docs/results/phase

The first command runs the cells that are not held out, fits each contrast linearly on the factors, writes the fit's
prediction for the held-out cells (prediction.json, never overwritten), runs these, and compares. Each stage's results
are on disk, so the same command resumes. The second makes everything but the tables again from the kept tables.

Files: worlds.csv, a row per cell, world and contrast; cells.csv, a row per cell and contrast or other quantity;
prediction.json; made.json, how the cells were made; phase.json; phase.png, phase.pdf and their data;
README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from eval import stats
from metaapo.command import errors_in_one_sentence
from metaapo.data import DataError, read_json, sha256_file, write_bytes, write_json, write_text
from metaapo.experiment import Experiment
from metaapo.provenance import git_commit, machine
from reports import series
from reports.drawing import STYLE, Drawn, save
from reports.evidence import MARGINS, Logs, endpoint_of
from reports.keep import markdown
from reports.runs import Results
from reports.timings import rule_seconds

ADAPTIVE, ROOM = "adaptive", "room"  # the contrasts that the figure and the page are about
# Factor -> (its name in words, its levels in words)
FACTORS = {
    "shown": ("share of readers that the offline pairs show", {0.25: "25 %", 0.5: "50 %", 0.75: "75 %"}),
    "locality": ("locality", {0.0: "global", 0.5: "mixed", 1.0: "local"}),
    "noise": ("annotator", {0.0: "accurate", 3.0: "noisy"}),
}
ASSAY = ("aim_iter", "spread_iter")  # rows of assay.json, averaged over iterations
DIGITS = 6


def factors_of(experiment: Experiment) -> dict[str, float]:
    """A cell's level of each factor."""
    world = experiment.world
    return {"shown": world.shown, "locality": world.locality, "noise": experiment.sampling.annotator_noise}


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def tables(found: series.Series, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read finished cells.

    Args:
        found: the series.
        names: of the cells.

    Returns:
        (worlds, cells): contrasts per world, in points of the primary endpoint; and per cell, with 95 % intervals, the
        contrasts and the rows ASSAY of its assay.
    """
    by_world, by_cell = [], []
    for name in names:
        experiment = found.cells[name]
        results = Results(experiment)
        logs = Logs(results, experiment.judges[0])
        where = {"cell": name, "held_out": name in found.held_out} | factors_of(experiment)
        for contrast, sides in found.contrasts.items():
            table = logs.contrast(sides.of, sides.against, *logs.endpoint)
            if table is None:
                raise DataError(f"{results.folder}: no scores of {sides.of} and {sides.against}; run the series again")
            estimate = stats.mean_over_seeds_and_prompts(table)
            by_cell.append(where | {"quantity": contrast} | _interval(estimate.value, estimate.low, estimate.high))
            for world, value in zip(experiment.world.seeds, table.mean(axis=1), strict=True):
                by_world.append(where | {"world": world, "contrast": contrast, "value": round(value, DIGITS)})
        by_cell += [where | row for row in _assay_rows(read_json(results.folder / "assay.json"))]
    return pd.DataFrame(by_world), pd.DataFrame(by_cell)


def _assay_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Aim and spread of selection, the mean over iterations; the ends of the intervals are averaged too, which is
    conservative, since iterations of one run err alike at worst."""
    for stem in ASSAY:
        found = [row for row in rows if row["name"].startswith(stem) and row["value"] is not None]
        if found:
            ends = (np.mean([row[key] for row in found]) for key in ("value", "ci_low", "ci_high"))
            yield {"quantity": stem.removesuffix("_iter")} | _interval(*ends)


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, DIGITS), "ci_low": round(low, DIGITS), "ci_high": round(high, DIGITS)}


# ---------------------------------------------------------------------------------------------------------------------
# Fit and prediction


def _design(frame: pd.DataFrame) -> np.ndarray:
    """Intercept and factors, each scaled from -1/2 at its lowest level to 1/2 at its highest: (rows, 1 + factors)."""
    columns = [np.ones(len(frame))]
    for factor, (_, levels) in FACTORS.items():
        low, high = min(levels), max(levels)
        columns.append((frame[factor].to_numpy(float) - low) / (high - low) - 0.5)
    return np.stack(columns, axis=1)


def fit(worlds: pd.DataFrame, contrast: str) -> np.ndarray:
    """Least-squares coefficients of a contrast: its mean, and its change from each factor's lowest to highest level."""
    frame = worlds[worlds["contrast"] == contrast]
    return np.linalg.lstsq(_design(frame), frame["value"].to_numpy(float), rcond=None)[0]


def predict(fitted: pd.DataFrame, cells: pd.DataFrame, contrasts: Sequence[str]) -> list[dict[str, Any]]:
    """Predict contrasts in other cells.

    Args:
        fitted: rows of worlds.csv to fit.
        cells: a row per cell to predict, with its factors.
        contrasts: their names.
    """
    predictions = []
    for contrast in contrasts:
        values = _design(cells) @ fit(fitted, contrast)
        predictions += [
            {"cell": cell, "contrast": contrast, "value": round(float(value), DIGITS), "positive": bool(value > 0)}
            for cell, value in zip(cells["cell"], values)
        ]
    return predictions


def _write_prediction(folder: Path, found: series.Series) -> None:
    """Write the prediction for the held-out cells, once.

    Raises:
        DataError: there is one, and it was made from other results.
    """
    path = folder / "prediction.json"
    sources = {name: sha256_file(found.cells[name].results / "scores.csv") for name in found.fitted}
    if path.exists():
        if read_json(path)["made_from"] != sources:
            raise DataError(
                f"{path}: was made from other scores than those of the fitted cells now; a prediction is not made "
                "twice: remove the series' results and start again"
            )
        return
    worlds, _ = tables(found, found.fitted)
    contrasts = [name for name, contrast in found.contrasts.items() if contrast.predict]
    others = pd.DataFrame([{"cell": name} | factors_of(found.cells[name]) for name in found.held_out])
    coefficients = {c: [round(float(x), DIGITS) for x in fit(worlds, c)] for c in contrasts}
    write_json(
        path,
        {
            "commit": git_commit(),
            "coefficients": {c: dict(zip(("mean", *FACTORS), values)) for c, values in coefficients.items()},
            "predictions": predict(worlds, others, contrasts),
            "made_from": sources,
        },
    )


# ---------------------------------------------------------------------------------------------------------------------
# Analysis


def analyse(worlds: pd.DataFrame, cells: pd.DataFrame, prediction: Mapping[str, Any]) -> dict[str, Any]:
    """The series' findings: effects of the factors, how the cells divide, and how the prediction did.

    Args:
        worlds: rows of worlds.csv.
        cells: rows of cells.csv.
        prediction: prediction.json.
    """
    contrasts, predicted = (
        list(dict.fromkeys(names))
        for names in (worlds["contrast"], (row["contrast"] for row in prediction["predictions"]))
    )
    return {
        "n_cells": int(cells["cell"].nunique()),
        "n_worlds": int(worlds["world"].nunique()),
        "contrasts": {name: _division(cells[cells["quantity"] == name]) for name in contrasts},
        "effects": [row for name in contrasts for row in _effects(worlds, name)],
        "prediction": {name: _outcome(cells, prediction, name) for name in predicted},
    }


def _division(cells: pd.DataFrame) -> dict[str, Any]:
    """Mean over cells, and in how many cells the interval lies above 0, below 0, or holds it."""
    above, below = (cells["ci_low"] > 0).sum(), (cells["ci_high"] < 0).sum()
    return {
        "mean": round(float(cells["value"].mean()), DIGITS),
        "smallest": round(float(cells["value"].min()), DIGITS),
        "largest": round(float(cells["value"].max()), DIGITS),
        "above_0": int(above),
        "below_0": int(below),
        "undecided": int(len(cells) - above - below),
    }


def _effects(worlds: pd.DataFrame, contrast: str) -> Iterator[dict[str, Any]]:
    """The contrast's mean and its change from each factor's lowest to highest level, with t-intervals over worlds."""
    per_world = np.array([fit(frame, contrast) for _, frame in worlds.groupby("world")])
    for number, factor in enumerate(("mean", *FACTORS)):
        estimate = stats.mean_over_seeds(per_world[:, number])
        yield {"contrast": contrast, "factor": factor} | _interval(estimate.value, estimate.low, estimate.high)


def _outcome(cells: pd.DataFrame, prediction: Mapping[str, Any], contrast: str) -> dict[str, Any]:
    """How many signs were predicted, with Clopper and Pearson's 95 % interval; a coin predicts half of them."""
    measured = cells[cells["quantity"] == contrast].set_index("cell")["value"]
    predicted = {row["cell"]: row for row in prediction["predictions"] if row["contrast"] == contrast}
    right = sum(bool(measured[cell] > 0) == row["positive"] for cell, row in predicted.items())
    ends = binomtest(right, len(predicted)).proportion_ci(method="exact")
    values = np.array([[row["value"], measured[cell]] for cell, row in predicted.items()])
    error = float(np.sqrt(np.mean((values[:, 0] - values[:, 1]) ** 2)))
    return {
        "n": len(predicted),
        "right": int(right),
        "share": round(right / len(predicted), DIGITS),
        "ci_low": round(float(ends.low), DIGITS),
        "ci_high": round(float(ends.high), DIGITS),
        "rms_error": round(error, DIGITS),
    }


def draw(cells: pd.DataFrame, prediction: Mapping[str, Any]) -> Figure:
    """The phase diagram: a panel per annotator and locality, the share shown along the axis."""
    predicted = {(row["cell"], row["contrast"]): row["value"] for row in prediction["predictions"]}
    looks = {ADAPTIVE: ("#0072B2", "o", -0.012), ROOM: ("#E69F00", "s", 0.012)}
    noises, localities = FACTORS["noise"][1], FACTORS["locality"][1]
    figure, axes = plt.subplots(len(noises), len(localities), figsize=(9, 5.2), sharex=True, sharey=True)
    for row, (noise, annotator) in zip(axes, noises.items()):
        for axis, (locality, kind) in zip(row, localities.items()):
            panel = cells[(cells["noise"] == noise) & (cells["locality"] == locality)]
            axis.axhline(0, color="#444444", linewidth=0.8)
            for contrast, (color, marker, shift) in looks.items():
                for _, cell in panel[panel["quantity"] == contrast].iterrows():
                    errors = [[cell["value"] - cell["ci_low"]], [cell["ci_high"] - cell["value"]]]
                    face = "white" if cell["held_out"] else color
                    x = cell["shown"] + shift
                    axis.errorbar(x, cell["value"], errors, color=color, marker=marker, markerfacecolor=face)
                    if (cell["cell"], contrast) in predicted:
                        axis.plot(x, predicted[cell["cell"], contrast], "_", color=color, markersize=14)
            axis.set_title(f"{kind}, {annotator} annotator")
            axis.set_xticks(list(FACTORS["shown"][1]), list(FACTORS["shown"][1].values()))
    figure.supxlabel("share of readers that the offline pairs show", fontsize=9)
    figure.supylabel("gain in win rate, points", fontsize=9)
    handles = [plt.Line2D([], [], color=c, marker=m, linestyle="") for c, m, _ in looks.values()]
    handles += [
        plt.Line2D([], [], color="#444444", marker=m, markerfacecolor="white", linestyle="") for m in ("o", "_")
    ]
    names = [
        "adaptive less random selection",
        "oracle less random selection",
        "held-out cell (hollow)",
        "its prediction",
    ]
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def page(found: Mapping[str, Any], cells: pd.DataFrame, made: Mapping[str, Any]) -> str:
    """The page for a reader with five minutes, in Markdown; every number on it comes from the files beside it."""
    margin, adaptive, oracle = made["margin"], found["contrasts"][ADAPTIVE], found["contrasts"][ROOM]
    outcome = found["prediction"]
    lines = [
        "# Where does adaptive selection matter?",
        (
            f"Made with `{made['command']}` at commit {made['commit'][:12]}, on "
            f"{made['machine'].get('cores', '?')} cores of {made['machine'].get('processor', 'an unknown processor')}: "
            f"{made['minutes']:.0f} minutes of jobs, of which several run at a time. "
            "`python -m reports.phase --kept docs/results/phase` makes this page again from the tables beside it."
        ),
        (
            f"**In short.** Adaptive selection beats random selection in {_cells(adaptive['above_0'], found)} and "
            f"loses to it in {adaptive['below_0']}; in the other {adaptive['undecided']} the interval holds 0. Its "
            f"gain is {adaptive['mean']:+.2f} points on average ({_range(adaptive)}), where {margin:g} is "
            "the smallest that matters. An oracle that selects by each prompt's true gain beats random selection in "
            f"{_cells(oracle['above_0'], found)}, by {oracle['mean']:+.2f} points on average ({_range(oracle)})."
        ),
        (
            f"Fitted on half of the cells and {outcome[ADAPTIVE]['n']} predicted before they ran, in worlds that the "
            f"fit had not seen: the sign of adaptive selection's gain was right in {outcome[ADAPTIVE]['right']} "
            f"(95 % interval of the share {outcome[ADAPTIVE]['ci_low']:.2f} to {outcome[ADAPTIVE]['ci_high']:.2f}; "
            f"a coin: 0.5), that of the oracle's in {outcome[ROOM]['right']} "
            f"({outcome[ROOM]['ci_low']:.2f} to {outcome[ROOM]['ci_high']:.2f})."
        ),
        "![Gain of adaptive selection and of the oracle in every cell](phase.png)",
        "## What changes the gain",
        "Change of the gain, in points, from each factor's lowest to its highest level (95 % t-intervals over "
        f"{found['n_worlds']} worlds):",
        _effects_table(found["effects"], made["words"]),
        "## All cells",
        "Gains in points; the budget is 58 % everywhere. Aim: rank correlation of the probability of sampling a prompt "
        "with what its online pair gains by gold. Spread: standard deviation of that probability over prompts.",
        _cells_table(cells, made["words"]),
        "docs/phase.md describes the factors and what the experiment cannot say.",
    ]
    return "\n\n".join(lines) + "\n"


def _cells(count: int, found: Mapping[str, Any]) -> str:
    return f"{count} of {found['n_cells']} cells"


def _range(division: Mapping[str, Any]) -> str:
    return f"{division['smallest']:+.2f} to {division['largest']:+.2f}"


def _effects_table(effects: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    rows = {"mean": "mean of all cells"} | {
        name: f"{title}: {levels[min(levels)]} to {levels[max(levels)]}" for name, (title, levels) in FACTORS.items()
    }
    by = {(row["contrast"], row["factor"]): row for row in effects}
    cells = [[title, *(_number(by[contrast, row]) for contrast in words)] for row, title in rows.items()]
    return markdown(["", *words.values()], cells)


def _cells_table(cells: pd.DataFrame, words: Mapping[str, str]) -> str:
    columns = [*words, *(stem.removesuffix("_iter") for stem in ASSAY)]
    rows = []
    for _, own in cells.groupby("cell", sort=False):
        first, by = own.iloc[0], {row["quantity"]: row for _, row in own.iterrows()}
        levels = [names[first[factor]] for factor, (_, names) in FACTORS.items()]
        values = [_number(by[name]) if name in by else "–" for name in columns]
        rows.append([*levels, "held out" if first["held_out"] else "fitted", *values])
    titles = [*words.values(), *columns[len(words) :]]
    return markdown(["shown", "locality", "annotator", "half", *titles], rows)


def _number(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def write(folder: Path) -> None:
    """Write what follows from the tables, prediction.json and made.json of a folder.

    Raises:
        DataError: one of them is missing.
    """
    missing = [name for name in ("worlds.csv", "cells.csv") if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder / missing[0]}: no such file; name a folder that a finished series was kept in")
    worlds, cells = (pd.read_csv(folder / name) for name in ("worlds.csv", "cells.csv"))
    prediction, made = read_json(folder / "prediction.json"), read_json(folder / "made.json")
    found = analyse(worlds, cells, prediction)
    write_json(folder / "phase.json", found)
    with plt.style.context(STYLE):
        figure = draw(cells, prediction)
    plt.close(figure)  # removes it from pyplot; it can still be saved
    title = "Where does adaptive selection matter?"
    caption = alt = (
        "Gain of adaptive selection and of an oracle over random selection in every cell, with 95 % intervals."
    )
    save(Drawn("phase", "results", title, caption, alt, figure, cells), folder)
    write_text(folder / "README.md", page(found, cells, made))


def _minutes(found: series.Series) -> float:
    return sum(row["seconds"] for cell in found.cells.values() for row in rule_seconds(cell.results)) / 60


def main() -> None:
    """Command line: run or read the series, analyse it, keep it."""
    parser = series.arguments(__doc__.splitlines()[0])
    arguments, options = parser.parse_known_args()
    with errors_in_one_sentence():
        if arguments.kept:
            write(arguments.kept)
            return
        found = series.read(arguments.config)
        series.run([found.cells[name] for name in found.fitted], arguments.at_once, options)
        _write_prediction(found.folder, found)
        series.run([found.cells[name] for name in found.held_out], arguments.at_once, options)
        worlds, cells = tables(found, list(found.cells))
        folder = arguments.out or found.folder
        write_bytes(folder / "prediction.json", (found.folder / "prediction.json").read_bytes())
        made = {
            "command": f"python -m reports.phase --config {arguments.config}",
            "commit": git_commit(),
            "minutes": round(_minutes(found), 1),
            "machine": machine(),
            "margin": MARGINS[endpoint_of(next(iter(found.cells.values())))[0]],
            "words": {name: contrast.words for name, contrast in found.contrasts.items()},
        }
        write_json(folder / "made.json", made)
        for name, frame in (("worlds", worlds), ("cells", cells)):
            write_text(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        write(folder)


if __name__ == "__main__":
    main()
