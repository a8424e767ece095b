"""Compare two experiments, two methods or two sets of judgments, paired, with intervals, as one page.

    python -m reports.compare results/default results/other                             two experiments
    python -m reports.compare results/default:metaapo results/default:ppo               two methods
    python -m reports.compare results/default::gold results/default::other              two judges
    python -m reports.compare A B --out compare.html

A side is FOLDER[:METHOD[:JUDGE]]; without a method every method that both have is compared with itself, without a judge
each side's first one judges. Values of the same seed and question are subtracted (A − B), so that what both share
cancels; the interval treats seeds (or worlds, if there are several) and questions as crossed random effects
(`eval.stats`). Nothing is corrected for multiple comparisons, and nothing here is a verdict.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eval import stats
from metaapo.command import errors_in_one_sentence
from metaapo.data import DataError, write_text
from reports import svg
from reports.evidence import RAW, Logs
from reports.first_screen import interval, number
from reports.runs import Results
from reports.tables import BENCHMARKS, TITLES, name_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an experiment's scores under one judge, of one method or of all.

    Attributes:
        results: the experiment's results.
        method: an entry of its configuration; "" for all.
        judge: one of its judges.
    """

    results: Results
    method: str
    judge: str

    @classmethod
    def parse(cls, text: str) -> Side:
        """A side as given on the command line.

        Raises:
            DataError: the folder is no finished experiment, or has no such method or judge.
        """
        folder, method, judge = (*text.split(":"), "", "")[:3]
        path = Path(folder) / "config.yaml"
        if not path.exists():
            raise DataError(f"{path}: no such file; give the results folder of a finished experiment")
        results = Results.load(path)
        experiment = results.experiment
        for name, known in ((method, list(experiment.methods)), (judge, experiment.judges)):
            if name and name not in known:
                raise DataError(f"{text}: {experiment.experiment} has no {name!r}; choose one of {', '.join(known)}")
        return cls(results, method, judge or experiment.judges[0])

    @property
    def name(self) -> str:
        """What the page calls it."""
        parts = [self.results.experiment.experiment, name_of(self.method) if self.method else "", f"judge {self.judge}"]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Difference:
    """A − B of one pair of methods on one benchmark, in the benchmark's unit.

    Attributes:
        title: the method, or both.
        benchmark: its name.
        left: mean of A over the common seeds and questions.
        right: mean of B.
        estimate: of the difference.
        per_seed: difference of each seed, or world if there are several, (n,).
    """

    title: str
    benchmark: str
    left: float
    right: float
    estimate: stats.Estimate
    per_seed: np.ndarray


def compare(left: Side, right: Side) -> list[Difference]:
    """Every difference between two sides.

    Raises:
        DataError: they have no method, benchmark, seed and question in common.
    """
    found = [row for pair in _pairs(left, right) for row in _differences(left, right, *pair)]
    if not found:
        raise DataError(
            f"{left.name} and {right.name} have no method with scores on the same seeds and questions; compare runs "
            "of the same experiment, or name a method of each: FOLDER:METHOD"
        )
    return found


def _pairs(left: Side, right: Side) -> list[tuple[str, str]]:
    mine, theirs = list(left.results.experiment.methods), list(right.results.experiment.methods)
    if left.method or right.method:
        return [(left.method or right.method, right.method or left.method)]
    return [(name, name) for name in mine if name in theirs]


def _differences(left: Side, right: Side, mine: str, theirs: str) -> Iterator[Difference]:
    logs = Logs(left.results, left.judge), Logs(right.results, right.judge)
    title = name_of(mine) if mine == theirs else f"{name_of(mine)} − {name_of(theirs)}"
    for benchmark in left.results.experiment.benchmarks:
        if benchmark not in right.results.experiment.benchmarks:
            continue
        scale = BENCHMARKS[benchmark].item_scale
        a, b = (scale * log.values(benchmark, method, RAW[benchmark]) for log, method in zip(logs, (mine, theirs)))
        a, b = a.align(b, join="inner")
        kept = ~(a.isna() | b.isna()).any()
        a, b = a.loc[:, kept], b.loc[:, kept]
        if not len(a) or a.shape[1] < 2:
            continue
        table = logs[0].by_world((a - b).to_numpy(), list(a.index))
        means = float(a.to_numpy().mean()), float(b.to_numpy().mean())
        yield Difference(title, benchmark, *means, stats.mean_over_seeds_and_prompts(table), table.mean(axis=1))


# ---------------------------------------------------------------------------------------------------------------------
# Page


def page(left: Side, right: Side, differences: list[Difference]) -> str:
    """The comparison as one HTML page that needs no other file."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    blocks = []
    for benchmark in dict.fromkeys(row.benchmark for row in differences):
        rows = [row for row in differences if row.benchmark == benchmark]
        blocks.append({"title": TITLES[benchmark], "chart": _chart(rows), "rows": [_row(row) for row in rows]})
    many = len(left.results.experiment.world.seeds) > 1
    return environment.get_template("compare.html.j2").render(
        left=left.name,
        right=right.name,
        headline=headline(differences),
        blocks=blocks,
        replicates="worlds" if many else "seeds",
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
    )


def headline(differences: list[Difference]) -> str:
    """How many differences exclude zero, and which is the clearest."""
    known = [row for row in differences if row.estimate.n_seeds > 1 and row.estimate.stderr]
    if not known:
        same = all(row.estimate.value == 0 for row in differences)
        return "Both sides are the same." if same else "One seed in common: the differences have no interval."
    clear = [row for row in known if row.estimate.low > 0 or row.estimate.high < 0]
    if not clear:
        return f"None of {len(known)} differences excludes zero."
    most = max(clear, key=lambda row: abs(row.estimate.value) / row.estimate.stderr)
    ends = interval(most.estimate.low, most.estimate.high, _digits(most))
    return (
        f"{len(clear)} of {len(known)} differences exclude zero; the clearest: {most.title} on "
        f"{TITLES[most.benchmark]}, {number(most.estimate.value, _digits(most))} [{ends}]."
    )


def _digits(row: Difference) -> int:
    return BENCHMARKS[row.benchmark].digits


def _row(row: Difference) -> dict[str, Any]:
    digits, e = _digits(row), row.estimate
    ends = interval(e.low, e.high, digits) if e.n_seeds > 1 and e.stderr is not None else "–"
    return {
        "title": row.title,
        "left": number(row.left, digits, signed=False),
        "right": number(row.right, digits, signed=False),
        "difference": number(e.value, digits),
        "interval": ends,
        "n": f"{e.n_seeds} × {e.n_prompts}",
        "above": f"{int((row.per_seed > 0).sum())} of {len(row.per_seed)}",
    }


def _chart(rows: list[Difference]) -> Markup:
    """A forest plot: one line per method, zero marked, a dot for each seed or world."""
    ends = [0.0, *(float(v) for row in rows for v in row.per_seed)]
    ends += [end for row in rows if row.estimate.stderr is not None for end in (row.estimate.low, row.estimate.high)]
    ends = [end for end in ends if np.isfinite(end)]
    pad = 0.08 * ((max(ends) - min(ends)) or 1.0)
    words = "; ".join(f"{row.title} {number(row.estimate.value, _digits(row))}" for row in rows)
    x = min(ends) - pad, max(ends) + pad
    chart = svg.Chart("Differences", words, x, (0, len(rows)), 420, 44 + 30 * len(rows), (4, 10, 36, 150))
    chart.axes("A − B, 95 % interval", "", yticks=[])
    chart.line(0, 0, 0, len(rows), "var(--soft)", width=1)
    for i, row in enumerate(rows):
        y, e = len(rows) - i - 0.5, row.estimate
        chart.text(142, chart.py(y) + 4, row.title, "end", "name")
        if e.n_seeds > 1 and e.stderr is not None:
            chart.line(e.low, y, e.high, y, "var(--accent)", width=3)
        for value in row.per_seed:
            chart.point(float(value), y, "var(--soft)", size=2.5)
        chart.point(e.value, y, "var(--accent)", size=5)
    return chart.markup()


def main() -> None:
    """Command line: python -m reports.compare A B [--out FILE]."""
    parser = argparse.ArgumentParser(prog="python -m reports.compare", description=__doc__.splitlines()[0])
    parser.add_argument("left", metavar="A", help="FOLDER[:METHOD[:JUDGE]], such as results/default:metaapo")
    parser.add_argument("right", metavar="B", help="the other side")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page (default: compare.html)")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        left, right = Side.parse(arguments.left), Side.parse(arguments.right)
        found = compare(left, right)
        write_text(arguments.out, page(left, right, found))
        print(headline(found))
        print(arguments.out, file=sys.stderr)


if __name__ == "__main__":
    main()
