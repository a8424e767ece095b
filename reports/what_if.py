"""What the page needs to recompute verdicts in the browser, and the same verdicts by Python, to compare them with.

The page ships the estimates behind every part of every claim: a mean, its standard error and degrees of freedom. From
those, `what_if.js` repeats the tests of `reports.parts` and `reports.claims` under another smallest gain that matters,
another correction, another metric, without Arena-Hard, or without runs that cut many answers. A test compares all
verdicts of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pandas as pd

from reports.claims import CLAIMS, Claim, Contrast, estimate_parts, missing, rule_on_parts
from reports.evidence import OVERALL, RAW, Table, endpoint_of, overall
from reports.first_screen import metric_title
from reports.parts import ALPHA, MAX_DF_PER_SEED, Part
from reports.runs import Results
from reports.sequential import LEVELS
from reports.spec_curve import CORRECTIONS, CUTS, Estimated, Specified, estimates, look_of_report, with_margin
from reports.tables import BENCHMARKS

LEFT_OUT = "arenahard"
MARGINS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)  # factors of the registered smallest gain that matters


class Without(Specified):
    """Evidence on the experiment's endpoint without one benchmark, or without its kind of questions if pooled."""

    @cache  # noqa: B019
    def contrast(self, better: str, worse: str, benchmark: str, metric: str) -> Table | None:
        """See `Evidence.contrast`."""
        if benchmark != OVERALL[0]:
            return super().contrast(better, worse, benchmark, metric)
        names = [name for name in self.experiment.benchmarks if name != LEFT_OUT]
        tables = [super(Without, self).contrast(better, worse, name, RAW[name]) for name in names]
        return None if not names or any(t is None for t in tables) else overall(tables, names)

    @cache  # noqa: B019
    def values(self, benchmark: str, arm: str, metric: str) -> pd.DataFrame:
        """See `Logs.values`; without the questions of the kind that is left out."""
        values = super().values(benchmark, arm, metric)
        if BENCHMARKS[benchmark].world_questions != "all":
            return values
        kind = f"{BENCHMARKS[LEFT_OUT].world_questions}-"
        return values[[question for question in values.columns if not str(question).startswith(kind)]]


def _claims_without(benchmark: str) -> tuple[Claim, ...]:
    """The claims, whose contrasts do not ask for a benchmark."""

    def kept(part: Any) -> Any:
        if not isinstance(part, Contrast):
            return part
        return replace(part, secondary=tuple(metric for metric in part.secondary if metric[0] != benchmark))

    return tuple(replace(claim, parts=tuple(map(kept, claim.parts))) for claim in CLAIMS)


def variants(results: Results) -> list[tuple[Estimated, bool, Sequence[Claim]]]:
    """(estimates, whether Arena-Hard is left out, claims) of every kind of evidence, the registered one first."""

    def made() -> list[tuple[Estimated, bool, Sequence[Claim]]]:
        found = [(e, False, CLAIMS) for e in estimates(results)]
        endpoint, names = endpoint_of(results.experiment), results.experiment.benchmarks
        # a single benchmark's metric stays the same without another benchmark
        mixed = endpoint == OVERALL or BENCHMARKS[endpoint[0]].world_questions == "all"
        if LEFT_OUT not in names or len(names) < 2 or not mixed:
            return found
        return found + [
            (_without(results, e), True, _claims_without(LEFT_OUT)) for e, _, _ in found if e.metric == endpoint
        ]

    return results.once(("what-if variants",), made)


def _without(results: Results, e: Estimated) -> Estimated:
    evidence = Without(results, e.judge, e.metric, CUTS[e.cut], e.entry)
    look, asked = look_of_report(results), _claims_without(LEFT_OUT)
    return replace(e, evidence=evidence, parts={c.id: estimate_parts(c, evidence, look) for c in asked})


def payload(results: Results) -> dict[str, Any]:
    """The data of the panel, as the page embeds it.

    Returns:
        {alpha, margins, corrections, boundary, names, cells: [{metric, cut, judge, entry, without, claims: [{id, lacks,
        parts: [[value, standard error, df, seeds, bound, margin, untestable, whether the margin is in the bound]]}]}]}.
    """
    boundary = look_of_report(results).boundary
    found = variants(results)
    metrics = dict.fromkeys(e.metric for e, _, _ in found)
    return {
        "alpha": ALPHA,
        "margins": MARGINS,
        "corrections": list(CORRECTIONS),
        "boundary": None if boundary is None else [list(map(float, boundary.nominal)), list(map(float, LEVELS))],
        "titles": {" ".join(metric): metric_title(*metric) for metric in metrics},
        "cells": [
            {
                "metric": " ".join(e.metric),
                "cut": e.cut,
                "judge": e.judge,
                "entry": e.entry,
                "without": without,
                "claims": [
                    {
                        "id": claim.id,
                        "lacks": bool(missing(claim, e.evidence)),
                        "parts": [_numbers(part) for part in e.parts[claim.id] if part.decides],
                    }
                    for claim in asked
                ],
            }
            for e, without, asked in found
        ],
    }


def _numbers(part: Part) -> list[Any]:
    e = part.estimate
    df = None if e.df is None else float(min(e.df, MAX_DF_PER_SEED * (e.n_seeds - 1.0)))
    numbers = [float(e.value), None if e.stderr is None else float(e.stderr), df, e.n_seeds, part.bound, part.margin]
    return [*numbers, bool(part.untestable), bool(part.bound < 0 and part.benchmark)]


def verdicts(results: Results) -> Iterator[dict[str, Any]]:
    """Python's verdict of every claim in every cell of the panel, for comparison with the browser's."""
    look = look_of_report(results)
    for number, (e, _, asked) in enumerate(variants(results)):
        for margin, correction in product(MARGINS, CORRECTIONS):
            parts = {id: [with_margin(part, margin) for part in found] for id, found in e.parts.items()}
            rulings = rule_on_parts(asked, parts, e.evidence, look, CORRECTIONS[correction])
            found = {ruling.claim.id: ruling.verdict for ruling in rulings}
            yield {"cell": number, "margin": margin, "correction": correction, "verdicts": found}
