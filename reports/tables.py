"""The tables of the report, as data and as CSV, Markdown, LaTeX (booktabs) and HTML.

The main table has the paper's layout, AlpacaEval 2 (LC, WR), Arena-Hard (SC, WR), MT-Bench, after a column of
annotations. There is one table per judge; scores of different judges are never mixed. Every cell stores the runs that
it averages.
"""

from __future__ import annotations

import csv
import html
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from eval import stats
from eval.benchmark import benchmarks, questions_of
from eval.questions import load_questions
from metaapo.data import write_text
from metaapo.experiment import SFT, Run
from metaapo.method import known_declarations
from reports.runs import KEYS, Results

BENCHMARKS = benchmarks()
TITLES = {name: declared.title for name, declared in BENCHMARKS.items()}
MAIN_COLUMNS = tuple(
    (name, column.metric, f"{declared.title} {column.label}".strip())
    for name, declared in sorted(BENCHMARKS.items(), key=lambda item: not item[1].primary)
    for column in declared.columns
)
ANNOTATIONS = "annotations, % of Online DPO"  # the first column: what a score cost stands before the score
CUT = "cut answers"  # stands for a metric in the columns of the main table
PARTIAL = "†"
PARTIAL_NOTE = " † partial: some judgments could not be read, or some seeds are missing."
FLAGGED = "‡"
SHOWN_CUT = 0.01  # share of cut answers from which it is shown beside sampled answers too
LATEX_ROWS = 40  # lines of a table that fit on a page with their caption
LATEX_HEAD = 12  # characters per line of a heading


@dataclass(frozen=True)
class Cell:
    """A mean over seeds with its 95 % t-interval.

    Attributes:
        value: mean; None if nothing was scored or logged.
        low: lower end; None with one seed.
        high: upper end; None with one seed.
        n_seeds: runs in the mean.
        runs: their ids, such as "dpo/budget1.0/seed0".
        partial: some judgments failed or some seeds are missing.
        digits: decimal places to print.
        prefix: before the value, such as "> " if it is only known to be larger.
        flag: why the value is not to be taken at face value, such as an extrapolation; "" if it is.
        route: address of the evidence within the report's page; "": that of its first run.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n_seeds: int = 0
    runs: tuple[str, ...] = ()
    partial: bool = False
    digits: int = 1
    prefix: str = ""
    flag: str = ""
    route: str = ""

    @property
    def marks(self) -> str:
        """The footnote marks after the value."""
        return (PARTIAL if self.partial else "") + (FLAGGED if self.flag else "")

    @property
    def has_interval(self) -> bool:
        """Whether to show an interval; there is none for a single seed or if all seeds agree exactly."""
        if self.low is None or self.high is None:
            return self.low is not self.high  # one end is unbounded
        return self.low < self.high - 1e-9  # rounding leaves a little where all seeds agree

    def end(self, value: float | None) -> str:
        """An end of the interval; empty if unbounded."""
        return "" if value is None else f"{value:.{self.digits}f}"

    def text(self) -> str:
        """Such as "58.4 [55.1, 61.7]", with a mark if the score is partial or flagged; "–" if there is no score."""
        if self.value is None:
            return "–"
        interval = "" if not self.has_interval else f" [{self.end(self.low)}, {self.end(self.high)}]"
        return f"{self.prefix}{self.value:.{self.digits}f}{self.marks}{interval}"


@dataclass(frozen=True, repr=False)
class Table:
    """A table of cells.

    Attributes:
        name: stem of its files.
        title: a few words.
        columns: column headings.
        rows: (row heading, cells).
        note: what is shown, n, seeds, judge.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str

    def __repr__(self) -> str:
        """Its name and size, since notebooks store it beside the Markdown."""
        return f"Table({self.name!r}, {len(self.rows)} x {len(self.columns)})"

    def _repr_markdown_(self) -> str:
        """Rich display in notebooks."""
        return f"**{self.title}**\n\n{self.to_markdown()}"

    def to_csv(self) -> str:
        """One line per cell, in full precision, with the runs it averages."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "column", "bound", "value", "ci_low", "ci_high", "n_seeds", "partial", "runs"])
        for head, cells in self.rows:
            for column, c in zip(self.columns, cells):
                numbers = [c.prefix.strip(), c.value, c.low, c.high, c.n_seeds, int(c.partial)]
                writer.writerow([head, column, *numbers, " ".join(c.runs)])
        return text.getvalue()

    def to_markdown(self) -> str:
        """A Markdown table followed by the note."""
        lines = [f"| | {' | '.join(self.columns)} |", f"| --- |{' ---: |' * len(self.columns)}"]
        lines += [f"| {head} | {' | '.join(cell.text() for cell in cells)} |" for head, cells in self.rows]
        return "\n".join([*lines, "", self.note, ""])

    def to_latex(self) -> str:
        """A booktabs table across both columns of an article; a long one continues in further floats.

        Intervals are below their values.

        It is shrunk if it is wider than the page. Needs \\usepackage{booktabs,graphicx}.
        """
        tall = any(cell.has_interval for _, cells in self.rows for cell in cells)
        size = LATEX_ROWS // 2 if tall else LATEX_ROWS
        chunks = [self.rows[i : i + size] for i in range(0, len(self.rows), size)] or [()]
        return "\n".join(self._latex_float(rows, first=not i) for i, rows in enumerate(chunks))

    def _latex_float(self, rows: Sequence[tuple[str, tuple[Cell, ...]]], first: bool) -> str:
        lines = [r"\begin{table*}", r"\centering", r"\small", r"\setlength{\tabcolsep}{3pt}"]
        lines += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"]
        lines += [
            rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
            *_latex_heads(self.columns),
            r"\midrule",
        ]
        lines += [" & ".join([_latex(head), *map(_latex_cell, cells)]) + r" \\" for head, cells in rows]
        caption = f"{_latex(self.title)}. {_latex(self.note)}" if first else f"{_latex(self.title)}, continued."
        lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}"]
        lines += [rf"\label{{tab:{self.name}}}"] if first else []
        return "\n".join([*lines, r"\end{table*}", ""])

    def to_html(self) -> str:
        """An HTML table; each cell links to the runs behind it."""
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in self.columns)
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>{"".join(map(_html_cell, cells))}</tr>'
            for name, cells in self.rows
        )
        return f'<table><thead><tr><th scope="col">method</th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _html_cell(cell: Cell) -> str:
    if cell.value is None:
        return "<td>–</td>"
    main = html.escape(f"{cell.prefix}{cell.value:.{cell.digits}f}") + (
        f"<sup>{cell.marks}</sup>" if cell.marks else ""
    )
    interval = f'<span class="ci">{cell.end(cell.low)} – {cell.end(cell.high)}</span>' if cell.has_interval else ""
    if not cell.runs or cell.runs[0].startswith("sft"):
        return f"<td>{main}{interval}</td>"
    route = html.escape(cell.route or f"#/run/{cell.runs[0]}", quote=True)
    return f'<td><a href="{route}">{main}</a>{interval}</td>'


LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "†": r"$^\dagger$", "–": "--", "−": "$-$", "√": r"$\surd$"}
LATEX |= {"‡": r"$^\ddagger$", "≤": r"$\leq$", ">": "$>$"}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _latex_heads(columns: Sequence[str]) -> list[str]:
    """The heading: columns of the same benchmark under its title, long headings on several lines."""
    titles = [_benchmark_in(column) for column in columns]
    titles = [title if titles.count(title) > 1 else "" for title in titles]
    shorts = [c.removeprefix(t).strip() or "score" if t else c for c, t in zip(columns, titles)]
    above, rules, start = [], [], 2  # the first column holds the rows' headings
    for title, group in groupby(titles):
        n = len(list(group))
        above.append(rf"\multicolumn{{{n}}}{{c}}{{{_latex(title)}}}" if title else " & ".join([""] * n))
        rules += [rf"\cmidrule(lr){{{start}-{start + n - 1}}}"] if title else []
        start += n
    lines = [" & ".join(["", *map(_latex_head, shorts)]) + r" \\"]
    return [" & ".join(["", *above]) + r" \\", "".join(rules), *lines] if rules else lines


def _benchmark_in(column: str) -> str:
    """The title of the benchmark with which a heading begins; "" if with none."""
    return next((title for title in TITLES.values() if f"{column} ".startswith(f"{title} ")), "")


def _latex_head(text: str) -> str:
    """A heading on several lines if it is long."""
    lines = [_latex(line) for line in textwrap.wrap(text, LATEX_HEAD, break_long_words=False)]
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r" \\ ".join(lines) + "}"


def _latex_cell(cell: Cell) -> str:
    """The value, and its interval on a line below it."""
    value, _, ends = cell.text().partition(" [")
    # braces, because a bracket after a line break would be read as its length
    return (
        rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{_latex(value)} \\ {{\scriptsize [{_latex(ends)}}}\end{{tabular}}"
        if ends
        else _latex(value)
    )


def name_of(method: str, budget: str | None = None) -> str:
    """A method's display name, with its budget cap if one is set; also of an arm such as "metaapo@0.5"."""
    method, _, cap = method.partition("@")
    budget = str(float(cap)) if cap else budget
    titles = {name: declared.title for name, declared in known_declarations().items()} | {"sft": "SFT"}
    name = titles.get(method, method.replace("metaapo_", f"{titles['metaapo']}, ").replace("_", " "))
    return name if budget in (None, "0.0", "1.0") else f"{name} (at most {float(budget):.0%})"


def mean_cell(
    values: pd.Series,
    runs: Sequence[str] = (),
    partial: bool = False,
    digits: int = 1,
    scale: tuple[float, float] = (-math.inf, math.inf),
) -> Cell:
    """Mean and 95 % t-interval over seeds; `values` has one entry per run, `scale` is the range of possible values."""
    if not len(values) or values.isna().all():
        return Cell(None)
    e = stats.mean_over_seeds(values.to_numpy(float))
    low, high = (max(e.low, scale[0]), min(e.high, scale[1])) if e.stderr is not None else (None, None)
    return Cell(e.value, low, high, e.n_seeds, tuple(runs), partial, digits)


def main_table(results: Results, judge: str) -> Table:
    """Every method after its last iteration, on every benchmark, under one judge."""
    last, scored = _last_scores(results, judge)
    columns = _with_cuts(results, scored)
    rows = []
    for method, budget in _models(results, last):
        group = last[(last["method"] == method) & (last["budget"] == budget)]
        expected = (
            len(results.experiment.world.seeds)
            if method == "sft"
            else len(results.experiment.methods[method].seeds or results.experiment.seeds)
        )
        cells = [
            _cut_cell(results, method, budget, benchmark)
            if metric == CUT
            else _score_cell(group, benchmark, metric, expected)
            for benchmark, metric, _ in columns
        ]
        rows.append((name_of(method, budget), (_ratio_cell(group), *cells)))
    title = f"Main comparison after iteration {results.experiment.iterations} (judge: {judge})"
    heads = (ANNOTATIONS, *(head for _, _, head in columns))
    partial = any(cell.partial for _, cells in rows for cell in cells)
    note = _main_note(results, last, judge, partial) + _flag_note(cell for _, cells in rows for cell in cells)
    return Table(f"main_{judge}", title, heads, tuple(rows), note)


def _last_scores(results: Results, judge: str) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    """Scores of the SFT policy and of every run after its last iteration, and the main columns with any score."""
    frame = results.scores[results.scores["judge"] == judge]
    last = frame[(frame["iteration"] == results.experiment.iterations) | (frame["method"] == "sft")]
    scored = set(zip(last["benchmark"], last["metric"]))
    return last, [column for column in MAIN_COLUMNS if column[:2] in scored]


def _with_cuts(results: Results, columns: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The columns, and after those of a benchmark its share of cut answers, if decoding is greedy or many were cut."""
    found = []
    for benchmark in dict.fromkeys(column[0] for column in columns):
        found += [column for column in columns if column[0] == benchmark]
        shares = results.answers[results.answers["benchmark"] == benchmark]
        shares = shares.groupby(["method", "budget", "iteration"])["cut"].mean()
        if len(shares) and (shares.max() >= SHOWN_CUT or is_greedy(results, benchmark)):
            found += [(benchmark, CUT, f"{TITLES[benchmark]} cut, %")]
    return found


def is_greedy(results: Results, benchmark: str) -> bool:
    """Whether some questions of a benchmark are answered by greedy decoding, which may loop until it is cut."""

    def made() -> bool:
        asked = load_questions(results.experiment, benchmark, results.experiment.world.seeds[0]).questions
        temperature = questions_of(benchmark).temperature
        return any(temperature(question, results.experiment.evaluation) == 0 for question in asked)

    return results.once(("greedy", benchmark), made)


def _cut_cell(results: Results, method: str, budget: str, benchmark: str) -> Cell:
    """Share of a method's answers that reached the length limit after the last iteration, in percent."""
    frame = results.answers
    at_end = frame["iteration"] == (0 if method == SFT else results.experiment.iterations)
    frame = frame[at_end & (frame["method"] == method) & (frame["budget"] == budget)]
    frame = frame[frame["benchmark"] == benchmark]
    return mean_cell(100 * frame["cut"], _run_ids(frame), scale=(0, 100))


def _models(results: Results, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(method, budget) in the order of the configuration, the SFT policy first."""
    present = set(zip(frame["method"], frame["budget"]))
    order = [("sft", "0.0")] + [(run.method, str(run.budget)) for run in results.experiment.compared_runs()]
    return [model for model in dict.fromkeys(order) if model in present]


def _score_cell(group: pd.DataFrame, benchmark: str, metric: str, expected: int) -> Cell:
    group = group[(group["benchmark"] == benchmark) & (group["metric"] == metric)]
    partial = bool((group["n_failed"] > 0).any()) or len(group) < expected
    declared = BENCHMARKS[benchmark]
    cell = mean_cell(group["value"], _run_ids(group), partial, declared.digits, declared.scale)
    return replace(cell, flag=_flag(group), route=_route(group, benchmark, metric))


def _route(group: pd.DataFrame, benchmark: str, metric: str) -> str:
    """The page's address of the scores behind a cell."""
    if not len(group):
        return ""
    row = group.iloc[0]
    return f"#/score/{row['method']}@{row['budget']}/{benchmark}/{metric}/{row['judge']}"


def _flag(group: pd.DataFrame) -> str:
    """The first flag of some scores, "" without one."""
    flags = group["flag"].dropna() if "flag" in group else []
    return str(flags.iloc[0]) if len(flags) else ""


def _flag_note(cells: Iterable[Cell]) -> str:
    """Explain the flags of cells, in at least one of whose runs they hold."""
    flags = sorted({cell.flag for cell in cells if cell.flag})
    return f" {FLAGGED} an extrapolation in at least one run: {'; '.join(flags)}." if flags else ""


def _ratio_cell(group: pd.DataFrame) -> Cell:
    group = group.drop_duplicates(["seed"])
    return mean_cell(100 * group["annotation_ratio_total"], _run_ids(group))


def _run_ids(frame: pd.DataFrame) -> list[str]:
    return [_run_id(*row) for row in zip(frame["method"], frame["budget"], frame["seed"])]


def _run_id(method: str, budget: str, seed: int) -> str:
    return f"sft of world {seed}" if method == "sft" else Run(method=method, budget=float(budget), seed=seed).id


def _main_note(results: Results, last: pd.DataFrame, judge: str, partial: bool) -> str:
    groups = list(last.groupby("benchmark", sort=False))
    counts = ", ".join(
        f"{benchmark} n = {group['n'].max()} ({group['version'].iloc[0]})" for benchmark, group in groups
    )
    baselines = {benchmark: results.baseline(benchmark) for benchmark, _ in groups}
    sft = "the SFT policy's own answers"
    against = list(dict.fromkeys(sft if b == "sft" else b for b in baselines.values() if b))
    rates = f"Win rates in percent against {' or '.join(against)}. " if against else ""
    return (
        f"Mean and 95 % t-interval over training seeds, clipped to the scale. Judge: {judge}. "
        f"Prompts, protocols: {counts}. {rates}"
        f"{_labels([benchmark for benchmark, _ in groups])} {_roles(results)}"
        f"{PARTIAL_NOTE if partial else ''}"
    )


def _roles(results: Results) -> str:
    """Say which columns decide the claims, and what a cut answer is."""
    primary = [TITLES[name] for name in results.experiment.benchmarks if BENCHMARKS[name].primary]
    said = [f"{' and '.join(primary)}: the primary endpoint, which decides the claims; the others are secondary."]
    cut = [
        "Cut: share of answers that reached the length limit, as loops do; shown where answers are greedy, or where it "
        f"is at least {100 * SHOWN_CUT:g} % for some method."
    ]
    return " ".join([*(said if primary else []), *(cut if len(results.answers) else [])])


def _labels(names: Sequence[str]) -> str:
    """Explain the short column labels and the scales that are not percentages."""
    shown = [BENCHMARKS[name] for name in names]
    labels = {column.label: column.words for declared in shown for column in declared.columns if column.label}
    grades = [f"{d.title}: {d.scale[0]:g} to {d.scale[1]:g}" for d in shown if d.unit == "grade"]
    parts = [", ".join(f"{label}: {words}" for label, words in labels.items()), *grades]
    return "; ".join(part for part in parts if part) + "."


def seeds_table(results: Results, judge: str) -> Table:
    """The single runs behind the main table."""
    last, columns = _last_scores(results, judge)
    rows = []
    rows_of: dict[tuple[str, str, int], dict[tuple[str, str], dict[str, Any]]] = {}
    for row in last.to_dict("records"):
        rows_of.setdefault((row["method"], row["budget"], row["seed"]), {})[row["benchmark"], row["metric"]] = row
    for model in _models(results, last):
        for method, budget, seed in sorted(run for run in rows_of if run[:2] == model):
            of = rows_of[method, budget, seed]
            spent = 100 * next(iter(of.values()))["annotation_ratio_total"]
            cells = [_seed_cell(of.get(column[:2])) for column in columns]
            cells = (Cell(spent, n_seeds=1, runs=(_run_id(method, budget, seed),)), *cells)
            rows.append((f"{name_of(method, budget)}, {'world' if method == 'sft' else 'seed'} {seed}", cells))
    note = f"Each run after its last iteration, with the 95 % interval over prompts. Judge: {judge}."
    note += _flag_note(cell for _, cells in rows for cell in cells)
    return Table(
        f"seeds_{judge}", f"Single runs (judge: {judge})", (ANNOTATIONS, *(c[2] for c in columns)), tuple(rows), note
    )


def _seed_cell(row: dict[str, Any] | None) -> Cell:
    if row is None:
        return Cell(None)
    ends = (None, None) if pd.isna(row["ci_low"]) else (float(row["ci_low"]), float(row["ci_high"]))
    digits, flag = BENCHMARKS[row["benchmark"]].digits, row.get("flag")
    run = _run_id(row["method"], row["budget"], row["seed"])
    cell = Cell(float(row["value"]), *ends, 1, (run,), bool(row["n_failed"] > 0), digits)
    return replace(cell, flag="" if flag is None or pd.isna(flag) else str(flag))


def costs_table(results: Results) -> Table:
    """What each method spent: annotations, tokens, seconds."""
    frame = results.iterations
    columns = {
        "sampled": ("prompts sampled", 0),
        "responses_scored": ("responses scored", 0),
        "reward_model_calls": ("distinct responses scored", 0),
        "tokens_generated": ("tokens generated", 0),
        "pairs": ("online pairs", 0),
        "uninformative": ("ties and identical", 0),
        "seconds": ("seconds", 1),
    }
    stages = [c for c in frame if c.startswith("seconds_")]
    frame = frame.assign(
        seconds=frame[stages].sum(axis=1), uninformative=frame.get("ties", 0) + frame.get("identical", 0)
    )
    shown = [name for name in columns if name in frame]
    totals = frame.groupby(["method", "budget", "seed"], sort=False)[shown].sum().reset_index()
    rows = []
    for (method, budget), group in totals.groupby(["method", "budget"], sort=False):
        ids = _run_ids(group)
        rows.append((name_of(method, budget), tuple(mean_cell(group[c], ids, digits=columns[c][1]) for c in shown)))
    note = (
        "Totals per training run, mean over seeds and 95 % t-interval, from the annotation ledger. Ties and "
        "identical: online pairs whose best and worst response give no preference. Seconds: wall time of the run's "
        "stages."
    )
    return Table("costs", "Costs per run", tuple(columns[c][0] for c in shown), tuple(rows), note)


def end_table(results: Results) -> Table:
    """KL, length, proxy reward and share of cut-off answers after the last iteration."""
    frame = results.iterations[results.iterations["iteration"] == results.experiment.iterations]
    heads = {"kl": "KL to SFT, nats", "mean_length": "length, tokens", "proxy_reward": "reward model's score"}
    cut = results.answers.pivot(index=[*KEYS, "iteration"], columns="benchmark", values="cut") * 100
    frame = frame.merge(cut, how="left", left_on=[*KEYS, "iteration"], right_index=True)
    heads |= {b: f"cut answers, {TITLES[b]}, %" for b in results.experiment.benchmarks if b in cut}
    shown = [name for name in heads if name in frame]
    rows = []
    for (method, budget), group in frame.groupby(["method", "budget"], sort=False):
        cells = tuple(
            mean_cell(group[name], _run_ids(group), digits=1, scale=(0, 100))
            if name in TITLES
            else mean_cell(group[name], _run_ids(group), digits=2)
            for name in shown
        )
        rows.append((name_of(method, budget), cells))
    note = (
        "After the last iteration, mean over seeds and 95 % t-interval: sampled responses to training prompts; and the "
        "share of benchmark answers that reached the length limit, as loops do (Arena-Hard uses greedy decoding)."
    )
    return Table("drift", "How far the policies moved", tuple(heads[name] for name in shown), tuple(rows), note)


def curve_table(results: Results) -> Table | None:
    """Annotations to reach Online DPO's score, and the score over log annotations; None with one budget only."""
    document = results.curve
    if document is None:
        return None
    rows = [(name_of(row["method"]), _curve_cells(row)) for row in document["methods"]]
    reaches = [row["reach"] for row in document["methods"]]
    rival, replicates = name_of(document["target"]), document["replicates"]
    between = document["range"] and "between {:.0%} and {:.0%} of the annotations".format(*document["range"])
    censored = "; ".join(
        f"{name_of(row['method'])}: {row['reach']['below']} of {row['reach']['n']} at or below the smallest budget, "
        f"{row['reach']['above']} never"
        for row in document["methods"]
    )
    coverage = min(reach["coverage"] for reach in reaches)
    note = (
        f"From runs with capped budgets. Left: median over {replicates} of the annotations at which the curve first "
        f"reaches {rival}'s score, in percent of {rival}'s annotations, with the interval between order statistics "
        f"(coverage {coverage:.1%} or more); ≤ and > where it is known only to lie beyond the trained budgets, an "
        f"empty end where it is unbounded. Censored {replicates}: {censored}. Middle and right: mean of the curve over "
        f"log annotations {between or 'is not defined, since the budgets do not overlap'}, with 95 % t-intervals over "
        f"{replicates}, and its difference from {rival}'s."
    )
    heads = (f"annotations to reach {rival}, %", "mean over log annotations", f"difference from {rival}")
    return Table("curve", "What a score costs", heads, tuple(rows), note)


def _curve_cells(row: dict[str, Any]) -> tuple[Cell, ...]:
    reach = row["reach"]
    percent = [None if reach[key] is None else 100 * reach[key] for key in ("value", "ci_low", "ci_high")]
    prefix = {"below": "≤ ", "above": "> "}.get(reach["bound"], "")
    areas = [
        Cell(None) if area is None else Cell(area["value"], area["ci_low"], area["ci_high"], area["n"])
        for area in (row["area"], row["area_difference"])
    ]
    return Cell(*percent, reach["n"], prefix=prefix), *areas


def tables(results: Results) -> list[Table]:
    """All tables of the experiment."""
    judged = [table(results, judge) for judge in results.experiment.judges for table in (main_table, seeds_table)]
    curve = curve_table(results)
    return [*judged, costs_table(results), end_table(results), *([curve] if curve else [])]


def save(table: Table, folder: Path) -> None:
    """Write NAME.csv, NAME.md and NAME.tex into `folder`."""
    for suffix, text in (("csv", table.to_csv()), ("md", table.to_markdown()), ("tex", table.to_latex())):
        write_text(folder / f"{table.name}.{suffix}", text)
