"""Claim cards: what the paper says, what was found here, what differs, and what would count against it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from reports import paper
from reports.decide import standing
from reports.first_screen import contrast_route, digits_of, interval, listed, metric_title, number
from reports.parts import ALPHA
from reports.runs import Results
from reports.tables import TITLES, name_of

MARKS = {
    "supported": "✓",
    "equivalent": "=",
    "worse": "✗",
    "no gain that matters": "≯",
    "inconclusive": "?",
    "untestable here": "∅",
    "not tested": "–",
}
UNITS = {"points": "points", "grade": "grades", "%": "%"}
BAR_WIDTH, BAR_HEIGHT = 160, 16  # size of an effect bar in CSS pixels
SETTINGS = {  # of MetaAPO's variants, as readers know them
    "select: random": "with random selection",
    "select: all": "that samples every prompt",
    "select: threshold": "that samples below a threshold",
    "weights: uniform": "with equal weights",
    "map: sigmoid": "without a meta-learner",
    "map: untrained": "with its map untrained",
}
SHOWN = 5  # comparisons on a card; the others are in its details


def count_verdicts(claims: Sequence[dict[str, Any]]) -> str:
    """Such as "1 worse, 5 inconclusive"; verdicts that no claim has are left out."""
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in MARKS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def cards(results: Results, agreed: dict[str, str]) -> list[dict[str, Any]]:
    """The claims as the page shows them.

    Args:
        results: the experiment's results.
        agreed: of each claim, how many specifications of the analysis agree (`spec_curve.agreement`).
    """
    trend = sampling_trend(results)
    extra = {"C4": trend} if trend else {}
    return [
        claim_view(claim, extra.get(claim["id"], "")) | {"agreement": agreed.get(claim["id"], "")}
        for claim in results.claims
    ]


def claim_view(claim: dict[str, Any], in_words: str = "") -> dict[str, Any]:
    """A verdict with the extra fields that the page shows; `in_words` replaces the list of findings."""
    parts = [_part_view(part) for part in claim["parts"]]
    deciding = [part for part in claim["parts"] if part["effect"] is not None and part["verdict"]]
    return (
        {"other_judges": {}, "looks": None, "deviations": None}
        | claim
        | {
            "mark": MARKS[claim["verdict"]],
            "slug": claim["verdict"].replace(" ", "-"),
            "endpoint_name": endpoint_name(claim["endpoint"]),
            "detectable": _quantity(claim["smallest_effect"], claim["smallest_effect_unit"]),
            "parts": parts,
            "standing": standing(claim),
            "said": paper.SAID.get(claim["id"]),
            "reason": readable(claim["reason"]),
            "in_words": in_words,
            "found": _found(deciding[:SHOWN]),
            "more": len(deciding) - SHOWN,
            "errors": _errors(claim),
            "missing_words": readable("; ".join(map(_missing, claim["missing"]))),
        }
    )


def _missing(what: str) -> str:
    """What a claim lacks, with a method by its display name."""
    return name_of(what) if what.isidentifier() else what


def _found(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deciding comparisons, each with a bar on the scale of its unit."""
    rows = []
    for part in parts:
        same = [other for other in parts if other["unit"] == part["unit"]]
        ends = [
            other[key] for other in same for key in ("ci_low", "ci_high", "effect", "bound") if other[key] is not None
        ]
        digits, signed = digits_of(part), part["unit"] != "%"
        rows.append(
            {
                "name": _short_name(part),
                "value": number(part["effect"], digits, signed) + (" %" if part["unit"] == "%" else ""),
                "interval": interval(part["ci_low"], part["ci_high"], digits, signed),
                "claimed": f"claimed {part['relation']} {number(part['bound'], 0, signed=False)}"
                if part["bound"]
                else "",
                "state": part["verdict"],
                "slug": part["verdict"].replace(" ", "-"),
                "href": contrast_route(part) if part["benchmark"] else "",
                "bar": effect_bar(part, min(ends), max(ends)),
            }
        )
    return rows


def _short_name(part: dict[str, Any]) -> str:
    if not part["benchmark"]:
        return part["label"][0].upper() + part["label"][1:]
    better, worse = (name_of(name) for name in part["label"].split(" - "))
    return f"{better} − {worse}, {metric_title(part['benchmark'], part['metric'])}"


def sampling_trend(results: Results) -> str:
    """How MetaAPO's sampling rate changed over training, as a sentence; empty without its runs."""
    if "metaapo" not in results.experiment.methods:
        return ""
    frame = results.at_full_budget(results.iterations)
    rates = 100 * frame[frame["method"] == "metaapo"].groupby("iteration")["sampling_rate"].mean()
    if len(rates) < 2:
        return ""
    first, last = rates.iloc[0], rates.iloc[-1]
    moved = "fell" if last < first else "rose"
    return (
        f"The share of prompts sampled {moved} from {first:.0f} % in iteration 1 to {last:.0f} % in iteration "
        f"{len(rates)}"
    )


def readable(reason: str) -> str:
    """A reason with the names that readers know in place of identifiers.

    >>> readable("most clearly metaapo - ppo on pooled win_rate: -3.21 points")
    'most clearly MetaAPO − PPO on Pooled questions: −3.21 points'
    """

    def named(found: re.Match[str]) -> str:
        better, worse, benchmark, metric = found.groups()
        return f"{name_of(better)} − {name_of(worse)} on {metric_title(benchmark, metric)}"

    text = re.sub(r"(\w[\w@.]*) - (\w[\w@.]*) on (\w+) (\w+)", named, reason)
    text = re.sub(r"\bmetaapo\b", name_of("metaapo"), text)
    for setting, words in SETTINGS.items():
        text = text.replace(f"with {setting}", words)
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _errors(claim: dict[str, Any]) -> str:
    """What the verdict's error rates are, in one sentence."""
    ps = {"for": claim["p_supported"], "against": claim["p_against"]}
    known = listed([f"p {side} = {p:.2g}" for side, p in ps.items() if p is not None])
    level = f"each direction is tested at {100 * ALPHA:g} % over all claims together"
    return f"{known}; {level}" if known else f"no test; {level}"


def _part_view(part: dict[str, Any]) -> dict[str, Any]:
    """A comparison with the texts that the page shows; a number that is missing is a dash."""
    decided = {"for": "for", "against": "against"}.get(part["seeds_direction"], "")
    needed = "–" if part["seeds_to_decide"] is None else f"{part['seeds_to_decide']} {decided}{_reach(part)}"
    ps = {key: "–" if part[key] is None else f"{part[key]:.3g}" for key in ("p_for", "p_against")}
    state = part["verdict"] or "secondary"
    shown = {"text": _interval(part) or "–", "name": readable(_part_name(part)), "needed": needed, "state": state}
    shown["href"] = contrast_route(part) if part["benchmark"] and part["effect"] is not None else ""
    return part | shown | ps | {"detectable": _quantity(part["smallest_effect"], part["unit"]) or "–"}


def _reach(part: dict[str, Any]) -> str:
    """The interval of the number of worlds or seeds to decide, such as " [7, 31]"; open if its end is out of reach."""
    return f" [{part['seeds_low']}, {part['seeds_high'] or '∞'}]"


def endpoint_name(endpoint: dict[str, str]) -> str:
    """The endpoint in words, such as "Pooled questions, win rate"."""
    if endpoint["benchmark"] not in TITLES:
        return "the mean of all benchmarks, each on 0 to 100"
    return f"{TITLES[endpoint['benchmark']]}, {endpoint['metric'].replace('_', ' ')}"


def _quantity(value: float | None, unit: str | None) -> str:
    """A size such as "1.2 points"; empty if there is none."""
    return "" if value is None else f"{value:.2g} {UNITS[unit]}"


def _part_name(part: dict[str, Any]) -> str:
    title = f"{part['title']}: " if part["title"] else ""
    if not part["benchmark"]:
        return title + part["label"]
    better, worse = (name_of(name) for name in part["label"].split(" - "))
    where = (
        "overall"
        if part["benchmark"] == "overall"
        else f"{TITLES[part['benchmark']]}, {part['metric'].replace('_', ' ')}"
    )
    return f"{title}{better} − {worse}, {where}"


def _interval(part: dict[str, Any]) -> str:
    if part["effect"] is None:
        return ""
    unit = f" {UNITS[part['unit']]}"
    sign = "" if part["unit"] == "%" else "+"
    interval = "" if part["ci_low"] is None else f" [{part['ci_low']:{sign}.2f}, {part['ci_high']:{sign}.2f}]"
    return f"{part['effect']:{sign}.2f}{interval}{unit}"


def effect_bar(part: dict[str, Any], low: float, high: float) -> Markup:
    """A small SVG of an effect, its interval and its bound on a scale from low to high; empty without an interval."""
    if part["ci_low"] is None:
        return Markup("")
    pad = 0.08 * ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(6 + (BAR_WIDTH - 12) * (value - low + pad) / (high - low + 2 * pad), 1)

    middle = BAR_HEIGHT / 2
    effect, ends, bound = (x(part["effect"]), (x(part["ci_low"]), x(part["ci_high"])), x(part["bound"]))
    return Markup(
        f'<svg class="bar" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" aria-hidden="true">'
        f'<line x1="{bound}" x2="{bound}" y1="1" y2="{BAR_HEIGHT - 1}" class="zero"/>'
        f'<line x1="{ends[0]}" x2="{ends[1]}" y1="{middle}" y2="{middle}" class="ci"/>'
        f'<circle cx="{effect}" cy="{middle}" r="4.5"/></svg>'
    )
