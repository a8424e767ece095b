"""Decide for each of the paper's claims C1 to C6 what this experiment says about it.

    python -m reports.claims --config config/default.yaml

A claim is a conjunction of parts. A part is a contrast (one method better than another after the last iteration) or a
measure (a quantity from the run logs compared with a bound). Contrasts are decided on one endpoint: the experiment's
primary endpoint if it lists one, else the mean of its benchmarks; C1 without a primary endpoint on all metrics of the
main table. Each part is estimated over training seeds and prompts together (`eval.stats`: crossed random effects,
Satterthwaite), paired by seed and prompt; with several worlds, worlds replace seeds.

Verdicts, from the tests of `reports.parts`:

| verdict | meaning |
| --- | --- |
| supported | all parts hold |
| equivalent | a part is within the smallest difference that matters, on both sides |
| worse | a part is on the wrong side of its bound by an amount that may matter |
| no gain that matters | a part rules out a gain that matters; whether it is equivalent or worse is open |
| inconclusive | none of these; the record says how many seeds or worlds would decide it, and in which direction |
| untestable here | nothing could show it in this experiment, as its assay found (`assay.json`) |
| not tested | the experiment lacks methods or runs that the claim needs, and no part refutes it |

Correction for multiple comparisons: a conjunction is supported only if its *weakest* part is (intersection-union
test, Berger 1982: the largest p-value needs no correction), and refuted if *any* part is (Holm over the parts).
Both p-values are then corrected over all claims that could be tested (Holm, 1979). Each side is tested at 2.5 %, the
tails of a 95 % interval; simulated, fewer than 5 % of experiments report any false "supported" (tests/test_claims.py).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from eval import stats
from metaapo.data import write_json
from reports import roles
from reports.evidence import BENCHMARKS, FULL_BUDGET, MARGINS, MATCHED_RANDOM, OVERALL, PARTS, Evidence, Logs
from reports.parts import (
    ALPHA,
    DECIDED,
    FUTILE,
    Part,
    Plan,
    Verdict,
    chance_to_decide,
    plan,
    plan_of_claim,
    refutation,
    states,
)
from reports.runs import Results
from reports.sequential import FIXED, Look, looks_of

PAPER_BUDGET = 0.58  # of Online DPO's annotations (paper, figure 1)
SAME_BUDGET = 0.02  # realised annotation ratios closer than this count as the same budget
MAP_CHANGE = 0.05  # mean change of w = h_phi(l_off) over the pairs seen in training, as a fraction

# Secondary where the experiment has a primary endpoint
MAIN_METRICS = tuple(
    (name, column.metric) for name, found in BENCHMARKS.items() if not found.primary for column in found.columns
)
UNITS = {name: found.unit for name, found in BENCHMARKS.items()} | {OVERALL[0]: "points"}

# Variants of MetaAPO, each with one component removed (reports.evidence finds them by the setting they change).
SAME_WEIGHTS = "select: random"
ADAPTIVE_SAMPLING = (SAME_WEIGHTS, "select: all", "select: threshold")
META_WEIGHTING = ("weights: uniform",)
META_LEARNER = ("map: sigmoid",)
UNTRAINED = "map: untrained"

# Methods are selected by their declarations (metaapo/method.py), so none is named here.
EVERY_BASELINE = "role: baseline"


@dataclass(frozen=True)
class Contrast:
    """`better` scores above `worse` on the endpoint after the last iteration, at each method's largest budget.

    Methods are named by their entry in the configuration, as variants of MetaAPO, such as "map: untrained", or by their
    role in the comparison, such as "role: full budget"; "role: baseline" gives one contrast per baseline.

    Attributes:
        better: the method claimed to be better.
        worse: the other one.
        title: what the contrast is within its claim, in a few words.
        secondary: further metrics, which are shown; without a primary endpoint they decide in its place.
        same_budget: realised annotation ratios must agree.
        cap: `better` may annotate at most this share of what Online DPO does.
        as_good: the claim is "not worse by the margin" (non-inferiority), not "better".
        selects: the gain can only come from which prompts are sampled.
    """

    better: str
    worse: str
    title: str = ""
    secondary: tuple[tuple[str, str], ...] = ()
    same_budget: bool = False
    cap: float | None = None
    as_good: bool = False
    selects: bool = False

    @property
    def needs_cap(self) -> str:
        """The run that the cap asks for, in words."""
        return f"{self.better} at {self.cap:.0%} of the annotations or less (a budget of at most {self.cap:g})"


@dataclass(frozen=True)
class Measure:
    """A quantity from `method`'s run logs, claimed to be above `bound`, or at most `bound` if `below` is set.

    All are fractions, 0 to 1; see `Logs.measure` for the names.
    """

    method: str
    name: Literal["annotation_ratio", "sampling_decline", "map_change"]
    label: str
    bound: float = 0.0
    margin: float = 0.0
    below: bool = False
    title: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: C1 to C6.
        statement: the claim as the paper means it.
        against: what would count against it.
        parts: all must hold.
        required: groups of methods; the claim can be supported only if the experiment has at least one of each group.
            Parts whose methods are absent are left out; the others can still refute the claim.
        loss_gaps: show L_off - L_on of each iteration with it.
    """

    id: str
    statement: str
    against: str
    parts: tuple[Contrast | Measure, ...]
    required: tuple[tuple[str, ...], ...]
    loss_gaps: bool = False


CLAIMS = (
    Claim(
        "C1",
        "MetaAPO beats every offline, online and hybrid baseline.",
        "A baseline over which a gain that matters can be ruled out: 1 point of win rate on the primary endpoint or, "
        "without one, 1 point (0.1 of a grade) on any metric of AlpacaEval 2, Arena-Hard and MT-Bench.",
        (Contrast("metaapo", EVERY_BASELINE, secondary=MAIN_METRICS),),
        tuple((name,) for name in roles.modules_that(roles.required)),
    ),
    Claim(
        "C2",
        "MetaAPO needs at most 58 % of Online DPO's annotations, and at that price it is as good.",
        "Left to itself, MetaAPO asks for more than 58 % of the annotations; or, held to 58 %, it is worse than Online "
        "DPO by 1 point or more.",
        (
            Measure(
                "metaapo",
                "annotation_ratio",
                "annotations relative to Online DPO's",
                PAPER_BUDGET,
                below=True,
                title="natural rate",
            ),
            Contrast("metaapo", FULL_BUDGET, "price", cap=PAPER_BUDGET, as_good=True),
        ),
        ((FULL_BUDGET,),),
    ),
    Claim(
        "C3",
        "Adaptive sampling, meta-weighting and the learnable meta-learner each matter: removing any one hurts.",
        "A component whose removal costs less than 1 point.",
        (
            *(Contrast("metaapo", name, "adaptive sampling", selects=True) for name in ADAPTIVE_SAMPLING),
            *(Contrast("metaapo", name, "meta-weighting") for name in META_WEIGHTING),
            *(Contrast("metaapo", name, "meta-learner") for name in META_LEARNER),
        ),
        (ADAPTIVE_SAMPLING, META_WEIGHTING, META_LEARNER),
    ),
    Claim(
        "C4",
        "The meta-learner samples more early in training and less later, as the policy aligns.",
        "A sampling rate in the last iteration that is at most 1 percentage point below that of the first.",
        (Measure("metaapo", "sampling_decline", "sampling rate, first minus last iteration", 0.0, 0.01),),
        (("metaapo",),),
        loss_gaps=True,
    ),
    Claim(
        "C5",
        "The meta-learner learns: its trained map differs from its initial one, and beats it.",
        "A map that moved by less than 5 points of weight, or a gain of less than 1 point over the untrained map.",
        (
            Measure("metaapo", "map_change", "mean change of the weight h_phi over the pairs met", MAP_CHANGE),
            Contrast("metaapo", UNTRAINED),
        ),
        ((UNTRAINED,),),
    ),
    Claim(
        "C6",
        "Adaptive selection beats random selection at the same annotation budget.",
        "A gain of less than 1 point over random selection of the same number of prompts, with MetaAPO's weights or "
        "with equal ones.",
        (
            Contrast("metaapo", SAME_WEIGHTS, "same weights", same_budget=True, selects=True),
            Contrast("metaapo", MATCHED_RANDOM, "equal weights", same_budget=True, selects=True),
        ),
        ((SAME_WEIGHTS,), (MATCHED_RANDOM,)),
    ),
)


# ---------------------------------------------------------------------------------------------------------------------
# From claims and evidence to parts


def estimate_parts(claim: Claim, evidence: Evidence, look: Look = FIXED, earlier: Sequence[Part] = ()) -> list[Part]:
    """Estimate all parts of a claim for which the experiment has the methods and scores.

    Args:
        claim: the claim.
        evidence: source of the scores and measures.
        look: the registered look that the evidence belongs to.
        earlier: the claim's parts at the previous look.
    """
    before = {part.key: part for part in earlier}
    confidence = 1 - 2 * look.level(ALPHA)
    parts = []
    for part in claim.parts:
        if isinstance(part, Measure):
            parts += _measured(part, evidence, confidence)
            continue
        for better, worse in _arms(part, evidence):
            parts += _contrasted(part, better, worse, evidence, confidence)
    return [replace(part, look=look, before=before.get(part.key)) for part in parts]


def _arms(part: Contrast, evidence: Evidence) -> list[tuple[str, str]]:
    """The arms that a contrast compares; empty if the experiment lacks one of them."""
    better = evidence.methods.get(part.better)
    if better is not None and part.cap is not None:
        better = evidence.within(better, part.cap)
    if better is None:
        return []
    if part.worse == EVERY_BASELINE:
        return [(better, name) for name in evidence.baselines]
    return [(better, evidence.methods[part.worse])] if part.worse in evidence.methods else []


def _measured(part: Measure, evidence: Evidence, confidence: float) -> list[Part]:
    table = evidence.measure(part.method, part.name) if part.method in evidence.methods else None
    if table is None:
        return []
    sign = -1 if part.below else 1
    percent = 100 * sign * table
    estimate = stats.mean_over_seeds_and_prompts(percent, confidence)
    bound, margin = 100 * sign * part.bound, 100 * part.margin
    return [Part(part.label, "", "", "%", bound, margin, percent, estimate, sign, part.title)]


def _metrics(part: Contrast, evidence: Evidence) -> list[tuple[str, str, bool]]:
    """(benchmark, metric, whether it decides) of a contrast."""
    has_primary = evidence.endpoint != OVERALL
    if part.secondary and not has_primary:
        return [(*metric, True) for metric in part.secondary]
    return [(*evidence.endpoint, True), *((*metric, False) for metric in part.secondary)]


def _contrasted(part: Contrast, better: str, worse: str, evidence: Evidence, confidence: float) -> list[Part]:
    if part.same_budget and _budget_gap(better, worse, evidence) > SAME_BUDGET:
        return []
    parts = []
    for benchmark, metric, decides in _metrics(part, evidence):
        table = evidence.contrast(better, worse, benchmark, metric)
        if table is not None:
            margin = MARGINS[benchmark]
            bound, margin = (-margin, 0.0) if part.as_good else (0.0, margin)
            parts.append(
                Part(
                    f"{better} - {worse}",
                    benchmark,
                    metric,
                    UNITS[benchmark],
                    bound,
                    margin,
                    table,
                    stats.mean_over_seeds_and_prompts(table, confidence),
                    title=part.title,
                    decides=decides,
                    untestable=evidence.no_room if part.selects else "",
                )
            )
    return parts


def _budget_gap(better: str, worse: str, evidence: Evidence) -> float:
    return abs(evidence.budget(better) - evidence.budget(worse))


def missing(claim: Claim, evidence: Evidence) -> dict[str, str]:
    """What the experiment lacks to support the claim, in words, with the title of the part that needs it ("": all)."""
    present = set(evidence.methods)
    lacks = {} if "metaapo" in present else {"metaapo": ""}
    titles = {part.worse: part.title for part in claim.parts if isinstance(part, Contrast)}
    for group in claim.required:
        if not present & set(group):
            lacks[" or ".join(map(_in_words, group))] = titles.get(group[0], "")
    for part in claim.parts:
        lacks |= dict.fromkeys(_part_lacks(part, evidence), part.title)
    return lacks


def _part_lacks(part: Contrast | Measure, evidence: Evidence) -> Iterator[str]:
    """What is missing for a part whose methods the experiment has."""
    if isinstance(part, Measure):
        if part.method in evidence.methods and evidence.measure(part.method, part.name) is None:
            yield f"the log of {part.label}"
        return
    present = part.better in evidence.methods and part.worse in evidence.methods
    if part.cap is not None and present and evidence.within(evidence.methods[part.better], part.cap) is None:
        yield part.needs_cap
    for better, worse in _arms(part, evidence):
        gap = _budget_gap(better, worse, evidence) if part.same_budget else 0.0
        if gap > SAME_BUDGET:
            yield f"{worse} at the budget of {better} (the realised ratios differ by {100 * gap:.1f} points)"
        yield from (f"scores on {benchmark}" for benchmark in _unscored(part, better, worse, evidence))


def _in_words(method: str) -> str:
    if method in PARTS:
        return " or ".join(roles.modules_that(PARTS[method]))
    return f"metaapo with {method}" if ": " in method else method


def _unscored(part: Contrast, better: str, worse: str, evidence: Evidence) -> list[str]:
    """Deciding benchmarks of a contrast without any score (single variants of a metric may be missing)."""
    deciding = [(benchmark, metric) for benchmark, metric, decides in _metrics(part, evidence) if decides]
    scored = {b for b, m in deciding if evidence.contrast(better, worse, b, m) is not None}
    return [b for b in dict.fromkeys(b for b, _ in deciding) if b not in scored]


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts


@dataclass(frozen=True)
class Ruling:
    """Outcome of the tests of a claim.

    Attributes:
        claim: the tested claim.
        verdict: the outcome after correction.
        parts: the estimated parts, secondary and untestable ones included; empty if nothing could be estimated.
        states: the state of each part that was tested, by its position in `parts`.
        lacks: what is missing, in words, with the title of the part that needs it.
        shown_by: the part that refutes the claim most clearly; None if none does.
        p_for: corrected p-value of "the claim does not hold"; None if something it needs is missing or untestable.
        p_against: corrected p-value of "the claim holds"; None if nothing was tested.
        n_tested: number of claims tested, including this one.
        look: the registered look of this ruling.
    """

    claim: Claim
    verdict: Verdict
    parts: list[Part]
    states: dict[int, Verdict]
    lacks: dict[str, str]
    shown_by: Part | None
    p_for: float | None
    p_against: float | None
    n_tested: int
    look: Look = FIXED

    @property
    def tested(self) -> list[Part]:
        """The parts that decide the claim."""
        return [self.parts[i] for i in self.states]


Correction = Callable[[dict[str, float]], dict[str, float]]


def rule(claims: Sequence[Claim], evidence: Evidence) -> list[Ruling]:
    """Test every claim on all evidence; results are in the order of the claims."""
    return rule_at_looks(claims, [evidence], [FIXED])


def rule_at_looks(claims: Sequence[Claim], evidences: Sequence[Evidence], looks: Sequence[Look]) -> list[Ruling]:
    """Test every claim at each look; what is decided at a look remains so, whatever later ones find.

    Args:
        claims: the claims to test.
        evidences: what was known at each look that has been reached, in order.
        looks: the registered looks; there may be more of them.

    Returns:
        For each claim, the ruling of the look that decided it, else that of the last one.
    """
    decided: dict[str, Ruling] = {}
    rulings: list[Ruling] = []
    for evidence, look in zip(evidences, looks):
        earlier = {ruling.claim.id: ruling.parts for ruling in rulings}
        parts = {claim.id: estimate_parts(claim, evidence, look, earlier.get(claim.id, ())) for claim in claims}
        rulings = rule_on_parts(claims, parts, evidence, look)
        decided = {ruling.claim.id: ruling for ruling in rulings if ruling.verdict in DECIDED} | decided
    return [decided.get(ruling.claim.id, ruling) for ruling in rulings]


def rule_on_parts(
    claims: Sequence[Claim],
    parts: dict[str, list[Part]],
    evidence: Evidence,
    look: Look = FIXED,
    correct: Correction | None = None,
) -> list[Ruling]:
    """Decide the claims from their estimated parts, corrected for multiple testing.

    Args:
        claims: the claims to test.
        parts: of each claim, by its id.
        evidence: what the parts come from.
        look: the registered look of the parts.
        correct: p-value of each claim -> the same, corrected over the claims; Holm's if None.
    """
    correct = correct or _holm
    lacks = {claim.id: missing(claim, evidence) for claim in claims}
    tests = {id: [p for p in estimated if p.decides and not p.untestable] for id, estimated in parts.items()}
    tested = {id: deciding for id, deciding in tests.items() if deciding}
    # a claim that lacks a part, or cannot test one, can only be refuted: it does not count in the correction of p_for
    whole = [id for id in tested if not lacks[id] and not any(part.untestable for part in parts[id])]
    p_for = correct({id: max(part.p_for for part in tested[id]) for id in whole})
    p_against = correct({id: float(stats.holm([p.p_against for p in found]).min()) for id, found in tested.items()})
    rulings = (
        _ruling(claim, parts[claim.id], lacks[claim.id], p_for.get(claim.id), p_against.get(claim.id), len(tested))
        for claim in claims
    )
    return [replace(ruling, look=look) for ruling in rulings]


def _ruling(
    claim: Claim,
    parts: list[Part],
    lacks: dict[str, str],
    p_for: float | None,
    p_against: float | None,
    n_tested: int,
) -> Ruling:
    deciding = [i for i, part in enumerate(parts) if part.decides and not part.untestable]
    found = dict(zip(deciding, states([parts[i] for i in deciding])))
    shown_by = None
    if p_against is not None and p_against < ALPHA:
        verdict, shown_by = refutation([parts[i] for i in deciding], n_tested)
    elif any(part.untestable for part in parts):
        verdict = "untestable here"
    elif lacks or not deciding:
        verdict = "not tested"
    else:
        verdict = "supported" if p_for is not None and p_for < ALPHA else "inconclusive"
    return Ruling(claim, verdict, parts, found, lacks, shown_by, p_for, p_against, n_tested)


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    return dict(zip(p_values, map(float, stats.holm(list(p_values.values())))))


def smallest_effect(parts: Sequence[Part]) -> Part | None:
    """The part of a conjunction with the largest smallest detectable effect, among those in the unit of scores if any.

    A true effect of that size in every part would be found in each of them with at least 80 % power.
    """
    known = [part for part in parts if part.smallest_effect is not None]
    scores = [part for part in known if part.benchmark] or known
    return max(scores, key=lambda part: part.smallest_effect / (MARGINS.get(part.benchmark) or 1.0), default=None)


# ---------------------------------------------------------------------------------------------------------------------
# Records


def decide(
    claims: Sequence[Claim],
    evidence: Evidence,
    judge: str,
    earlier: Sequence[Evidence] = (),
    looks: Sequence[Look] = (FIXED,),
) -> list[dict[str, Any]]:
    """Decide every claim, corrected for multiple testing.

    Args:
        claims: the claims to test.
        evidence: source of the scores and measures.
        judge: name of the judge who gave the scores, for the record.
        earlier: the evidence of the looks before, in order.
        looks: the registered looks.

    Returns:
        One record per claim, in order, as stored in claims.json.
    """
    rulings = rule_at_looks(claims, [*earlier, evidence], looks)
    return [_record(ruling, evidence, judge, looks, len(earlier)) for ruling in rulings]


def _record(
    ruling: Ruling, evidence: Evidence, judge: str, looks: Sequence[Look] = (FIXED,), reached: int = 0
) -> dict[str, Any]:
    claim, parts = ruling.claim, ruling.parts
    alpha = 2 * looks[-1].level(ALPHA / max(1, ruling.n_tested))
    shown = ruling.tested or [part for part in parts if part.decides]
    weakest = min(shown, key=lambda part: (-part.p_for, part.strength)) if shown else None
    needed = plan_of_claim(ruling.tested, alpha) if ruling.verdict == "inconclusive" else Plan(None, None)
    smallest = smallest_effect(shown)
    n = len(ruling.tested)
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": ruling.verdict,
        "reason": _reason(ruling, evidence, needed),
        "against": claim.against,
        "judge": judge,
        "endpoint": dict(zip(("benchmark", "metric"), evidence.endpoint)),
        **_effect(weakest),
        "p_supported": _round(ruling.p_for),
        "p_against": _round(ruling.p_against),
        "correction": f"intersection-union over {n} parts (for), Holm over {n} parts (against), "
        f"then Holm over {ruling.n_tested} tested claims; each side at {100 * ALPHA:g} %",
        "smallest_effect": _round(smallest.smallest_effect) if smallest else None,
        "smallest_effect_unit": smallest.unit if smallest else None,
        **_plan_record(needed),
        "seeds_limit": needed.limit,
        "looks": _looks_record(ruling, looks, reached),
        "replicates": evidence.replicates,
        "missing": list(ruling.lacks),
        "conditions": dict(evidence.unmet),
        "loss_gaps": _loss_gaps(claim, evidence),
        "parts": [
            *(_part_record(part, _state_of(ruling, i), alpha) for i, part in enumerate(parts)),
            *(_absent(needs, title) for needs, title in ruling.lacks.items()),
        ],
    }


def _plan_record(needed: Plan) -> dict[str, Any]:
    low, high = needed.interval
    return {
        "seeds_to_decide": needed.seeds,
        "seeds_low": low,
        "seeds_high": high,
        "seeds_direction": needed.direction,
    }


def _looks_record(ruling: Ruling, looks: Sequence[Look], reached: int) -> dict[str, Any] | None:
    """Where the claim stands in the registered design; None without one."""
    if looks[0] is FIXED:
        return None
    decided, last = ruling.verdict in DECIDED, looks[-1]
    open_at_next = ruling.verdict == "inconclusive" and reached + 1 < len(looks)
    chance = chance_to_decide(ruling.tested, last, ALPHA / ruling.n_tested) if open_at_next else None
    return {
        "at": [look.n for look in looks],
        "nominal": [_round(look.level(ALPHA)) for look in looks],
        "reached": looks[reached].n,
        "decided": ruling.look.n if decided else None,
        "chance_by_last": _round(chance),
        "next": looks[reached + 1].n if open_at_next and chance >= FUTILE else None,
        "futile": open_at_next and chance < FUTILE,
    }


def _state_of(ruling: Ruling, index: int) -> Verdict | None:
    """A part's verdict; None for a secondary metric, which has none."""
    part = ruling.parts[index]
    if not part.decides:
        return None
    return "untestable here" if part.untestable else ruling.states[index]


EFFECT_KEYS = ("effect", "ci_low", "ci_high", "unit", "bound", "relation", "effect_of")
PLAN_KEYS = ("seeds_to_decide", "seeds_low", "seeds_high", "seeds_direction")
PART_KEYS = ("margin", "p_for", "p_against", "p_superior", "smallest_effect", *PLAN_KEYS)


def _effect(part: Part | None) -> dict[str, Any]:
    """The weakest part, which decides the verdict and is shown as its headline."""
    if part is None:
        return dict.fromkeys(EFFECT_KEYS) | {"n_seeds": 0, "n_prompts": 0}
    e = part.estimate
    low, high = (part.sign * e.low, part.sign * e.high)[:: part.sign] if e.n_seeds > 1 else (None, None)
    return {
        "effect": _round(part.sign * e.value),
        "ci_low": _round(low),
        "ci_high": _round(high),
        "unit": part.unit,
        "bound": _round(part.sign * part.bound),
        "relation": "above" if part.sign > 0 else "at most",
        "effect_of": part.label + _on(part),
        "n_seeds": e.n_seeds,
        "n_prompts": e.n_prompts,
    }


def _on(part: Part) -> str:
    return f" on {part.benchmark} {part.metric}" if part.benchmark else ""


def _part_record(part: Part, state: Verdict | None, alpha: float) -> dict[str, Any]:
    planned = plan(part, alpha) if part.decides else Plan(None, None)
    return {
        "title": part.title,
        "label": part.label,
        "benchmark": part.benchmark,
        "metric": part.metric,
        "verdict": state,
        "decides": state not in (None, "untestable here"),
        **_effect(part),
        "margin": _round(part.margin),
        "p_for": _round(part.p_for),
        "p_against": _round(part.p_against),
        "p_superior": _round(part.p_superior) if part.bound < 0 and part.benchmark else None,
        "smallest_effect": _round(part.smallest_effect),
        **_plan_record(planned),
    }


def _absent(needs: str, title: str) -> dict[str, Any]:
    """The record of a part that could not be estimated."""
    head = {"title": title, "label": needs, "benchmark": "", "metric": "", "verdict": "not tested", "decides": False}
    return head | _effect(None) | dict.fromkeys(PART_KEYS)


def _loss_gaps(claim: Claim, evidence: Evidence) -> list[dict[str, Any]]:
    """L_off - L_on of each iteration in nats per pair, with its 95 % interval over seeds or worlds."""
    if not claim.loss_gaps or "metaapo" not in evidence.methods:
        return []
    rows = []
    for iteration, values in sorted(evidence.loss_gaps("metaapo").items()):
        e = stats.mean_over_seeds(values)
        ends = {"ci_low": _round(e.low), "ci_high": _round(e.high)}
        rows.append({"iteration": iteration, "value": _round(e.value), **ends, "n_seeds": e.n_seeds})
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# In words


def _reason(ruling: Ruling, evidence: Evidence, needed: Plan) -> str:
    """The reason for the verdict in a few sentences, joined by semicolons."""
    lines = [_outcome(ruling, evidence, needed), *_by_title(ruling)]
    return "; ".join(lines)


def _outcome(ruling: Ruling, evidence: Evidence, needed: Plan) -> str:
    tested, n = ruling.tested, len(ruling.tested)
    if ruling.shown_by is not None:
        return _refuted(ruling, evidence)
    if ruling.verdict == "untestable here":
        return next(part.untestable for part in ruling.parts if part.untestable)
    if ruling.verdict == "not tested":
        return f"not tested in this experiment: needs {', '.join(ruling.lacks) or 'scores'}"
    if ruling.verdict == "supported":
        when = f" at the look after {ruling.look.n} {evidence.replicates}" if ruling.look.boundary else ""
        held = "the comparison holds after correction" if n == 1 else f"all {n} comparisons hold after correction"
        return held + when
    held = sum(part.p_for < ALPHA for part in tested)
    alone = f"{held} of {n} comparisons hold on their own"
    if n == 1:
        alone = "the comparison holds on its own" if held else "the comparison does not exceed its bound"
    alone += ", but not after correction" if held == n else ""
    return f"{alone}; {needed.in_words(evidence.replicates)}"


def _refuted(ruling: Ruling, evidence: Evidence) -> str:
    """What refutes the claim; "not seen here" if the experiment does not meet all conditions of the claim."""
    part, n = ruling.shown_by, len(ruling.tested)
    against = sum(other.p_against < ALPHA for other in ruling.tested)
    many = f"{against} of {n} comparisons speak against it, most clearly " if n > 1 else ""
    if not evidence.unmet:
        return f"contradicted: {many}{_finding(part, ruling.verdict)}"
    unmet = " or ".join(evidence.unmet)
    return f"not seen here: {many}{_finding(part, ruling.verdict)} (this experiment does not have the paper's {unmet})"


def _finding(part: Part, verdict: Verdict) -> str:
    shown = _effect(part)
    amount = f"{shown['effect']:.4g} {part.unit} [{shown['ci_low']:.4g}, {shown['ci_high']:.4g}]"
    found = f"{part.label}{_on(part)}: {amount}"
    margin = f"{part.margin:g} {part.unit.removesuffix('s') if part.margin == 1 else part.unit}"
    if verdict == "equivalent":
        return f"{found}, so that any difference is below {margin}, the smallest that matters"
    if verdict == "worse":
        return f"{found}, claimed {shown['relation']} {shown['bound']:g}"
    return f"{found}, which rules out a gain of {margin}"


def _by_title(ruling: Ruling) -> list[str]:
    """The verdicts of a claim's titled parts, if it has several, such as "natural rate: supported"."""
    titles = dict.fromkeys(part.title for part in ruling.claim.parts if part.title)
    found = []
    for title in titles if len(titles) > 1 else []:
        states = [_state_of(ruling, i) for i, part in enumerate(ruling.parts) if part.title == title]
        lacks = [needs for needs, of in ruling.lacks.items() if of == title]
        said = [str(state) for state in dict.fromkeys(states) if state]
        said += [f"not tested (needs {', '.join(lacks)})"] if lacks else []
        found += [f"{title}: {' and '.join(said)}"] if said else []
    superior = [part for part in ruling.tested if part.bound < 0 and part.benchmark]
    return found + [f"one-sided p of being better, not only as good: {part.p_superior:.3g}" for part in superior]


def _round(value: float | None) -> float | None:
    """Round to seven significant digits, since machines differ in the last bits; infinity, not valid in JSON, is
    None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def verdicts(results: Results, evidence_of: Callable[[Results, str], Evidence] = Logs) -> list[dict[str, Any]]:
    """All verdicts under the first judge of the configuration, with the other judges' verdicts."""
    first, *others = results.experiment.judges
    experiment, design = results.experiment, results.experiment.design
    looks = looks_of(design.looks, design.spending)
    before = [Results(experiment.at_look(number)) for number in range(1, design.look)]

    def decided(judge: str) -> list[dict[str, Any]]:
        earlier = [evidence_of(look, judge) for look in before]
        return decide(CLAIMS, evidence_of(results, judge), judge, earlier, looks)

    records = decided(first)
    for judge in others:
        for record, other in zip(records, decided(judge)):
            kept = ("verdict", "effect", "ci_low", "ci_high", "unit", "reason")
            record.setdefault("other_judges", {})[judge] = {key: other[key] for key in kept}
    return records


def main() -> None:
    """Command line: python -m reports.claims --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.claims", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    from reports.registration import with_deviations  # which imports the claims

    results = Results.load(parser.parse_args().config)
    records = with_deviations(verdicts(results), results.experiment)
    write_json(results.folder / "claims.json", records)
    for record in records:
        print(f"{record['id']} {record['verdict']}: {record['reason']}")
        print(*(f"  deviation: {deviation}\n" for deviation in record["deviations"] or []), sep="", end="")


if __name__ == "__main__":
    main()
