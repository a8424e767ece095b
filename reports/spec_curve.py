"""Specification curve: each verdict under the other choices that the analysis could have made, from the stored runs.

    python -m reports.spec_curve --config config/default.yaml

Writes spec_curve.json. A specification is one choice of each of these; the registered one is the first:

| choice | alternatives |
| --- | --- |
| metric | the experiment's endpoint; every metric of the main table |
| margin | as registered; half of it; twice as much |
| correction over claims | Holm's; Bonferroni's; none |
| cut answers | all runs; without runs more than 3 % of whose answers reached the length limit |
| judge | every judge of the experiment |
| fidelity | MetaAPO as configured; every entry that differs from it in its fidelity switches alone |

The share of specifications with the same verdict stands beside it. It measures how much a verdict owes to choices, not
its error rate: specifications share their data.

Source: Simonsohn, Simmons & Nelson, "Specification curve analysis", Nature Human Behaviour 4 (2020).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from metaapo.data import read_json, write_json
from metaapo.method import module_of
from reports.claims import CLAIMS, MAIN_METRICS, Correction, Ruling, estimate_parts, rule_on_parts
from reports.drawing import Drawn
from reports.evidence import Logs, Table, endpoint_of
from reports.health import MAX_CUT
from reports.parts import Part
from reports.runs import Results
from reports.sequential import Look, looks_of

FILE = "spec_curve.json"
MARGINS = {"as registered": 1.0, "half": 0.5, "double": 2.0}
CORRECTIONS: dict[str, Correction | None] = {
    "Holm": None,
    "Bonferroni": lambda ps: {id: min(1.0, len(ps) * p) for id, p in ps.items()},
    "none": lambda ps: ps,
}
CUTS = {"all runs": 1.0, "without runs that cut": MAX_CUT}
SILENT = ("not tested", "untestable here")  # a specification that cannot test a claim says nothing about it
COLORS = {
    "supported": "#0072b2",
    "equivalent": "#999999",
    "no gain that matters": "#e69f00",
    "worse": "#d55e00",
    "inconclusive": "#dddddd",
}


@dataclass(frozen=True)
class Specification:
    """One way to analyse the stored runs; see the module's table for the values."""

    metric: str
    margin: str
    correction: str
    cut: str
    judge: str
    fidelity: str


class Specified(Logs):
    """Evidence on another endpoint, without runs that cut many answers, or with another entry in MetaAPO's place."""

    def __init__(self, results: Results, judge: str, endpoint: tuple[str, str], most_cut: float, entry: str) -> None:
        super().__init__(results, judge)
        self.endpoint, self.most_cut = endpoint, most_cut
        if "metaapo" in self.methods:
            self.methods = {**self.methods, "metaapo": entry}

    @cache  # noqa: B019 - margins and corrections ask for the same tables again
    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """See `Evidence.contrast`."""
        return super().contrast(better, worse, benchmark, metric)

    @cache  # noqa: B019
    def measure(self, method: str, name: str) -> Table | None:
        """See `Evidence.measure`."""
        return super().measure(self.methods.get(method, method), name)

    @cache  # noqa: B019
    def budget(self, method: str) -> float:
        """See `Evidence.budget`."""
        return super().budget(method)

    @cache  # noqa: B019
    def values(self, benchmark: str, arm: str, metric: str) -> pd.DataFrame:
        """See `Logs.values`; without seeds of which more answers than allowed were cut."""
        values, shares = super().values(benchmark, arm, metric), self._cut_shares()
        key = (*self._arm(arm), benchmark)
        worst = shares.loc[key] if key in shares.index else shares.iloc[:0]
        return values.drop(index=worst.index[worst > self.most_cut], errors="ignore")

    def _cut_shares(self) -> pd.Series:
        """Share of cut answers after the last iteration, by method, budget, benchmark and seed."""

        def made() -> pd.Series:
            answers = self.results.answers
            answers = answers[answers["iteration"] == self.experiment.iterations]
            return answers.set_index(["method", "budget", "benchmark", "seed"])["cut"].sort_index()

        return self.results.once(("cut shares",), made)


def spec_curve(results: Results) -> dict[str, Any]:
    """The content of spec_curve.json.

    Returns:
        {specifications: [...], claims: [{id, verdict: under the registered specification, n: specifications that can
        test the claim, agree: how many of them give this verdict, share, counts: verdict -> specifications, verdicts:
        in the order of the specifications}]}. `share` is None if the registered specification cannot test the claim.
    """
    found = list(_rulings(results))
    claims = []
    for i, claim in enumerate(CLAIMS):
        verdicts = [rulings[i].verdict for _, rulings in found]
        counts = Counter(verdict for verdict in verdicts if verdict not in SILENT)
        first, n = verdicts[0], counts.total()
        claims.append(
            {
                "id": claim.id,
                "verdict": first,
                "n": n,
                "agree": counts[first],
                "share": counts[first] / n if n and first not in SILENT else None,
                "counts": dict(counts.most_common()),
                "verdicts": verdicts,
            }
        )
    return {"specifications": [asdict(specification) for specification, _ in found], "claims": claims}


@dataclass(frozen=True)
class Estimated:
    """The claims' parts on one kind of evidence: what a specification's margin and correction are applied to.

    Attributes:
        metric: benchmark and metric that decide.
        cut: a key of CUTS.
        judge: its name.
        entry: what stands for MetaAPO.
        evidence: the evidence.
        parts: of each claim, by its id.
    """

    metric: tuple[str, str]
    cut: str
    judge: str
    entry: str
    evidence: Specified
    parts: dict[str, list[Part]]


def estimates(results: Results) -> list[Estimated]:
    """Every kind of evidence, the registered one first; made once, since they take most of the time."""

    def made() -> list[Estimated]:
        look = look_of_report(results)
        found = []
        for judge, metric, cut, entry in product(
            results.experiment.judges, _metrics(results), CUTS, _fidelities(results)
        ):
            evidence = Specified(results, judge, metric, CUTS[cut], entry)
            parts = {claim.id: estimate_parts(claim, evidence, look) for claim in CLAIMS}
            found.append(Estimated(metric, cut, judge, entry, evidence, parts))
        return found

    return results.once(("estimates",), made)


def look_of_report(results: Results) -> Look:
    """The registered look that the experiment has reached."""
    design = results.experiment.design
    return looks_of(design.looks, design.spending)[design.look - 1]


def _rulings(results: Results) -> Iterator[tuple[Specification, list[Ruling]]]:
    """The rulings under each specification, the registered one first; parts are estimated once per kind of evidence."""
    look = look_of_report(results)
    for e in estimates(results):
        for margin, correction in product(MARGINS, CORRECTIONS):
            parts = {id: [with_margin(part, MARGINS[margin]) for part in found] for id, found in e.parts.items()}
            rulings = rule_on_parts(CLAIMS, parts, e.evidence, look, CORRECTIONS[correction])
            yield Specification(" ".join(e.metric), margin, correction, e.cut, e.judge, e.entry), rulings


def _metrics(results: Results) -> list[tuple[str, str]]:
    """The endpoint, then the metrics of the main table that were scored."""
    scored = set(zip(results.scores["benchmark"], results.scores["metric"]))
    first = endpoint_of(results.experiment)
    return [first, *(metric for metric in MAIN_METRICS if metric in scored and metric != first)]


def _fidelities(results: Results) -> list[str]:
    """MetaAPO's entry, then those that differ from it in their fidelity switches alone."""
    methods = results.experiment.methods
    if "metaapo" not in methods:
        return ["metaapo"]
    ignored = {"module", "fidelity", "seeds", "budget", "benchmarks", "role"}
    first = methods["metaapo"].model_dump(exclude=ignored)
    same = [n for n, m in methods.items() if module_of(n, m) == "metaapo.metaapo" and n != "metaapo"]
    return ["metaapo", *(n for n in same if methods[n].model_dump(exclude=ignored) == first)]


def with_margin(part: Part, factor: float) -> Part:
    """The part with another smallest difference that matters; a claim of "not worse" has it in its bound."""
    if part.bound < 0 and part.benchmark:
        return replace(part, bound=part.bound * factor)
    return replace(part, margin=part.margin * factor)


def write(results: Results) -> None:
    """Write spec_curve.json."""
    write_json(results.folder / FILE, spec_curve(results))


def agreement(results: Results) -> dict[str, str]:
    """For each claim, how many specifications agree with its verdict, in words; empty without spec_curve.json."""
    path = results.folder / FILE
    found = read_json(path)["claims"] if path.exists() else []
    return {
        claim["id"]: f"{claim['agree']} of {claim['n']} specifications of the analysis give this verdict"
        for claim in found
        if claim["share"] is not None
    }


def specifications(results: Results) -> Drawn | None:
    """Every claim's verdicts over all specifications, as one row of cells per claim."""
    path = results.folder / FILE
    found = read_json(path) if path.exists() else {"claims": []}
    shown = [claim for claim in found["claims"] if claim["share"] is not None]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.4 * len(shown)))
    for row, claim in enumerate(shown):
        left = 0
        for verdict in [v for v in COLORS if claim["counts"].get(v)]:
            count = claim["counts"][verdict]
            mine = {"edgecolor": "black", "linewidth": 1.5} if verdict == claim["verdict"] else {}
            axes.barh(row, count / claim["n"], left=left, color=COLORS[verdict], **mine)
            left += count / claim["n"]
    axes.set(xlim=(0, 1), xlabel="share of specifications", yticks=range(len(shown)))
    axes.set_yticklabels([claim["id"] for claim in shown])
    axes.invert_yaxis()
    used = [v for v in COLORS if any(claim["counts"].get(v) for claim in shown)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLORS[verdict]) for verdict in used]
    figure.legend(handles, used, loc="outside lower center", ncols=3)
    n = len(found["specifications"])
    return Drawn(
        "specifications",
        "results",
        "Specification curve",
        f"Verdicts under {n} specifications of the analysis (metric, margin, correction, cuts, judge, fidelity), "
        "from the same runs; framed: the registered specification's verdict. Specifications that cannot test a "
        "claim are left out. The shares say how much a verdict owes to choices; they are no error rates.",
        "Bars of the verdicts' shares, one for each claim.",
        figure,
        pd.DataFrame(_rows(found)),
    )


def _rows(found: dict[str, Any]) -> Sequence[dict[str, Any]]:
    verdicts = {claim["id"]: claim["verdicts"] for claim in found["claims"]}
    return [s | {id: vs[i] for id, vs in verdicts.items()} for i, s in enumerate(found["specifications"])]


def main() -> None:
    """Command line: python -m reports.spec_curve --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.spec_curve", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    write(Results.load(parser.parse_args().config))


if __name__ == "__main__":
    main()
