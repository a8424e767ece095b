"""Decide for each of the paper's claims C1 to C6 whether it is supported, contradicted or undecided.

    python -m reports.claims --config config/default.yaml

A claim is a conjunction of parts. A part is a contrast (one method better than another on one metric, after the last
iteration) or a measure (a quantity from the run logs compared with a bound). Each part is estimated over training seeds
and
prompts together (`eval.stats`: crossed random effects, Satterthwaite), paired by seed and prompt, and gives two
one-sided p-values:

- for the claim: the effect is above the part's bound;
- against it: the effect is below `bound + margin`, the smallest gain that would matter. So "no gain of 1 point" can be
  shown, and equality cannot be claimed merely because a difference is "not significant".

Correction for multiple comparisons: a conjunction is supported only if its *weakest* part is (intersection-union
test, Berger 1982: the largest p-value needs no correction), and contradicted if *any* part is (Holm over the parts).
Both p-values are then corrected over all claims that could be tested (Holm, 1979). Each side is tested at 2.5 %, the
tails of a
95 % interval; simulated, fewer than 5 % of experiments report any false "supported" (tests/test_claims.py).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy.special import stdtr, stdtrit

from eval import stats
from eval.benchmark import benchmarks
from metaapo.data import write_json
from reports import roles
from reports.evidence import FULL_BUDGET, MATCHED_RANDOM, PARTS, Evidence, Logs, Table
from reports.runs import Results

Verdict = Literal["supported", "contradicted", "undecided"]

ALPHA = 0.025  # one-sided, the tail of a two-sided 95 % interval
# Satterthwaite's test is too liberal in the far tails that the correction needs if two or three seeds happen to agree:
# in simulations, 9 % of experiments with 2 seeds then reported a false "supported". With at most 3 degrees of freedom
# for each seed beyond the first it is 4.8 % with 2 seeds and at most 2.8 % with 3 or more, in the worst case.
MAX_DF_PER_SEED = 3
POWER = 0.8
MAX_SEEDS = 200
PAPER_BUDGET = 0.58  # of Online DPO's annotations (paper, figure 1)
SAME_BUDGET = 0.02  # realised annotation ratios closer than this count as the same budget
MAP_CHANGE = 0.05  # mean change of w = h_phi(l_off) over the pairs seen in training, as a fraction

OVERALL = ("overall", "score")  # mean of the benchmarks, each on 0 to 100; all prompts of a benchmark have equal weight
BENCHMARKS = benchmarks()
MAIN_METRICS = tuple((name, column.metric) for name, found in BENCHMARKS.items() for column in found.columns)
MARGINS = {name: found.margin for name, found in BENCHMARKS.items()} | {"overall": 1.0}
UNITS = {name: found.unit for name, found in BENCHMARKS.items()} | {"overall": "points"}

# Variants of MetaAPO, each with one component removed (reports.evidence finds them by the setting they change).
ADAPTIVE_SAMPLING = ("select: random", "select: all", "select: threshold")
META_WEIGHTING = ("weights: uniform",)
META_LEARNER = ("map: sigmoid",)
UNTRAINED = "map: untrained"

# Methods are selected by their declarations (metaapo/method.py), so none is named here.
EVERY_BASELINE = "role: baseline"


@dataclass(frozen=True)
class Contrast:
    """`better` scores above `worse` after the last iteration, on each of `metrics`, at each method's largest budget.

    Methods are named by their entry in the configuration, as variants of MetaAPO, such as "map: untrained", or by their
    role in the comparison, such as "role: full budget"; "role: baseline" gives one contrast per baseline.
    """

    better: str
    worse: str
    metrics: tuple[tuple[str, str], ...] = (OVERALL,)
    same_budget: bool = False


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


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: C1 to C6.
        statement: the claim as the paper means it.
        against: what would count against it.
        parts: all must hold.
        required: groups of methods; the claim can be supported only if the experiment has at least one of each group.
            Parts whose methods are absent are left out; the others can still contradict the claim.
    """

    id: str
    statement: str
    against: str
    parts: tuple[Contrast | Measure, ...]
    required: tuple[tuple[str, ...], ...]


CLAIMS = (
    Claim(
        "C1",
        "MetaAPO beats every offline, online and hybrid baseline on AlpacaEval 2, Arena-Hard and MT-Bench.",
        "A baseline over which a gain of 1 point of win rate (0.1 of a grade) can be ruled out on any of the five "
        "metrics.",
        (Contrast("metaapo", EVERY_BASELINE, MAIN_METRICS),),
        tuple((name,) for name in roles.modules_that(roles.required)),
    ),
    Claim(
        "C2",
        "MetaAPO does so with at most 58 % of Online DPO's annotations.",
        "A measured annotation ratio above 58 %, or a gain over Online DPO of less than 1 point.",
        (
            Measure("metaapo", "annotation_ratio", "annotations relative to Online DPO's", PAPER_BUDGET, below=True),
            Contrast("metaapo", FULL_BUDGET),
        ),
        ((FULL_BUDGET,),),
    ),
    Claim(
        "C3",
        "Adaptive sampling, meta-weighting and the learnable meta-learner each matter: removing any one hurts.",
        "A component whose removal costs less than 1 point.",
        tuple(Contrast("metaapo", name) for name in (*ADAPTIVE_SAMPLING, *META_WEIGHTING, *META_LEARNER)),
        (ADAPTIVE_SAMPLING, META_WEIGHTING, META_LEARNER),
    ),
    Claim(
        "C4",
        "The meta-learner samples more early in training and less later, as the policy aligns.",
        "A sampling rate that is as high in the last iteration as in the first (a decline of less "
        "than 1 point cannot be ruled out).",
        (Measure("metaapo", "sampling_decline", "sampling rate, first minus last iteration", 0.0, 0.01),),
        (("metaapo",),),
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
        "A gain of less than 1 point over random selection of the same number of prompts.",
        (Contrast("metaapo", MATCHED_RANDOM, same_budget=True),),
        ((MATCHED_RANDOM,),),
    ),
)


@dataclass(frozen=True)
class Part:
    """One estimated part of a claim.

    Attributes:
        label: what is compared.
        benchmark: "" for a measure.
        metric: "" for a measure.
        unit: of `estimate`.
        bound: value that the effect is claimed to exceed.
        margin: smallest gain over the bound that would matter.
        table: (seeds, prompts) values.
        estimate: mean and 95 % interval of the table.
        sign: -1 if the quantity is claimed to be small; table, bound and estimate are then negated.
    """

    label: str
    benchmark: str
    metric: str
    unit: str
    bound: float
    margin: float
    table: Table = field(repr=False)
    estimate: stats.Estimate
    sign: int = 1

    @property
    def p_for(self) -> float:
        """One-sided p-value of "the effect is at most the bound"."""
        return _upper_tail(self.estimate, self.bound)

    @property
    def p_against(self) -> float:
        """One-sided p-value of "the effect is at least bound + margin"."""
        return 1.0 - _upper_tail(self.estimate, self.bound + self.margin)

    @property
    def strength(self) -> float:
        """Standard errors above the bound; the weakest part of a claim has the lowest."""
        distance = self.estimate.value - self.bound
        return distance / self.estimate.stderr if self.estimate.stderr else math.copysign(math.inf, distance)


def _upper_tail(estimate: stats.Estimate, bound: float) -> float:
    """One-sided p-value against "mean <= bound"; 1/2 for a single seed, which carries no information about others."""
    if estimate.stderr is None or estimate.n_seeds < 2:
        return 0.5
    distance = estimate.value - bound
    if estimate.stderr == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(_capped(estimate.df, estimate.n_seeds), -distance / estimate.stderr))


def _capped(df: float, n_seeds: int) -> float:
    return min(df, MAX_DF_PER_SEED * (n_seeds - 1.0))


# ---------------------------------------------------------------------------------------------------------------------
# From claims and evidence to parts


def estimate_parts(claim: Claim, evidence: Evidence) -> list[Part]:
    """Estimate all parts of a claim for which the experiment has the methods and scores."""
    parts = []
    for part in claim.parts:
        if isinstance(part, Measure):
            parts += _measured(part, evidence)
            continue
        for better, worse in _entries(part, evidence):
            parts += _contrasted(part, better, worse, evidence)
    return parts


def _entries(part: Contrast, evidence: Evidence) -> list[tuple[str, str]]:
    """The entries that a contrast compares; empty if the experiment lacks one of them."""
    if part.better not in evidence.methods:
        return []
    if part.worse == EVERY_BASELINE:
        return [(evidence.methods[part.better], name) for name in evidence.baselines]
    if part.worse not in evidence.methods:
        return []
    return [(evidence.methods[part.better], evidence.methods[part.worse])]


def _measured(part: Measure, evidence: Evidence) -> list[Part]:
    table = evidence.measure(part.method, part.name) if part.method in evidence.methods else None
    if table is None:
        return []
    sign = -1 if part.below else 1
    percent = 100 * sign * table
    estimate = stats.mean_over_seeds_and_prompts(percent)
    return [Part(part.label, "", "", "%", 100 * sign * part.bound, 100 * part.margin, percent, estimate, sign)]


def _contrasted(part: Contrast, better: str, worse: str, evidence: Evidence) -> list[Part]:
    if part.same_budget and _budget_gap(better, worse, evidence) > SAME_BUDGET:
        return []
    parts = []
    for benchmark, metric in part.metrics:
        table = evidence.contrast(better, worse, benchmark, metric)
        if table is not None:
            label = f"{better} - {worse}"
            estimate = stats.mean_over_seeds_and_prompts(table)
            parts.append(Part(label, benchmark, metric, UNITS[benchmark], 0.0, MARGINS[benchmark], table, estimate))
    return parts


def _budget_gap(better: str, worse: str, evidence: Evidence) -> float:
    return abs(evidence.budget(better) - evidence.budget(worse))


def missing(claim: Claim, evidence: Evidence) -> list[str]:
    """What the experiment lacks to support the claim, in words; empty if nothing is missing."""
    present = set(evidence.methods)
    lacks = [" or ".join(map(_in_words, group)) for group in claim.required if not present & set(group)]
    for part in claim.parts:
        if isinstance(part, Measure):
            if part.method in present and evidence.measure(part.method, part.name) is None:
                lacks.append(f"the log of {part.label}")
            continue
        for better, worse in _entries(part, evidence):
            lacks += [f"scores on {benchmark}" for benchmark in _unscored(part, better, worse, evidence)]
            gap = _budget_gap(better, worse, evidence) if part.same_budget else 0.0
            if gap > SAME_BUDGET:
                lacks.append(
                    f"{worse} at the budget of {better} (the realised ratios differ by {100 * gap:.1f} points)"
                )
    if "metaapo" not in present:
        lacks.insert(0, "metaapo")
    return list(dict.fromkeys(lacks))


def _in_words(method: str) -> str:
    if method in PARTS:
        return " or ".join(roles.modules_that(PARTS[method]))
    return f"metaapo with {method}" if ": " in method else method


def _unscored(part: Contrast, better: str, worse: str, evidence: Evidence) -> list[str]:
    """Benchmarks of a contrast without any score (single variants of a metric may be missing)."""
    scored = {b for b, m in part.metrics if evidence.contrast(better, worse, b, m) is not None}
    return [b for b in dict.fromkeys(b for b, _ in part.metrics) if b not in scored]


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts


@dataclass(frozen=True)
class Ruling:
    """Outcome of the tests of a claim.

    Attributes:
        claim: the tested claim.
        verdict: the outcome after correction.
        parts: the estimated parts; empty if nothing could be tested.
        lacks: what is missing, in words.
        p_for: corrected p-value of "the claim does not hold"; None if something it needs is missing.
        p_against: corrected p-value of "the claim holds"; None if nothing was tested.
        n_tested: number of claims tested, including this one.
    """

    claim: Claim
    verdict: Verdict
    parts: list[Part]
    lacks: list[str]
    p_for: float | None
    p_against: float | None
    n_tested: int


def rule(claims: Sequence[Claim], evidence: Evidence) -> list[Ruling]:
    """Test every claim and correct for multiple testing; results are in the order of the claims."""
    parts = {claim.id: estimate_parts(claim, evidence) for claim in claims}
    lacks = {claim.id: missing(claim, evidence) for claim in claims}
    tested = [id for id, estimated in parts.items() if estimated]
    # a claim with a missing part can only be contradicted, so it does not count in the correction of p_for
    p_for = _holm({id: max(part.p_for for part in parts[id]) for id in tested if not lacks[id]})
    p_against = _holm({id: float(stats.holm([part.p_against for part in parts[id]]).min()) for id in tested})
    rulings = []
    for claim in claims:
        ps = p_for.get(claim.id), p_against.get(claim.id)
        rulings.append(Ruling(claim, _verdict(*ps), parts[claim.id], lacks[claim.id], *ps, len(tested)))
    return rulings


def _verdict(p_for: float | None, p_against: float | None) -> Verdict:
    if p_for is not None and p_for < ALPHA:
        return "supported"
    return "contradicted" if p_against is not None and p_against < ALPHA else "undecided"


def decide(claims: Sequence[Claim], evidence: Evidence, judge: str) -> list[dict[str, Any]]:
    """Decide every claim, corrected for multiple testing.

    Args:
        claims: the claims to test.
        evidence: source of the scores and measures.
        judge: name of the judge who gave the scores, for the record.

    Returns:
        One record per claim, in order, as stored in claims.json.
    """
    return [_record(ruling, judge) for ruling in rule(claims, evidence)]


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    return dict(zip(p_values, map(float, stats.holm(list(p_values.values())))))


def _record(ruling: Ruling, judge: str) -> dict[str, Any]:
    claim, verdict, parts, lacks = ruling.claim, ruling.verdict, ruling.parts, ruling.lacks
    alpha = 2 * ALPHA / max(1, ruling.n_tested)
    weakest = min(parts, key=lambda part: (-part.p_for, part.strength)) if parts else None
    needed = seeds_to_decide(parts, alpha) if parts and verdict == "undecided" and not lacks else (None, None)
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": verdict,
        "reason": _reason(verdict, parts, lacks, needed),
        "against": claim.against,
        "judge": judge,
        **_effect(weakest),
        "p_supported": _round(ruling.p_for),
        "p_contradicted": _round(ruling.p_against),
        "correction": f"intersection-union over {len(parts)} parts (for), Holm over {len(parts)} parts (against), "
        f"then Holm over {ruling.n_tested} tested claims; each side at {100 * ALPHA:g} %",
        "seeds_to_decide": needed[0],
        "seeds_limit": needed[1],
        "missing": lacks,
        "parts": [_part_record(part, alpha) for part in parts],
    }


EFFECT_KEYS = ("effect", "ci_low", "ci_high", "unit", "bound", "relation", "effect_of")


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


def _part_record(part: Part, alpha: float) -> dict[str, Any]:
    plan = _plan(part, part.estimate.value - part.bound, part.bound, alpha)
    return {
        "label": part.label,
        "benchmark": part.benchmark,
        "metric": part.metric,
        **_effect(part),
        "margin": _round(part.margin),
        "p_for": _round(part.p_for),
        "p_against": _round(part.p_against),
        "seeds_to_decide": plan[0],
    }


def seeds_to_decide(parts: list[Part], alpha: float) -> tuple[int | None, str | None]:
    """Number of seeds that would decide a claim with 80 % power if the effects stay as observed.

    Args:
        parts: the parts of one undecided claim.
        alpha: two-sided level after correction.

    Returns:
        (seeds, None), or (None, reason): "seeds" if more than MAX_SEEDS are needed, "prompts" if more prompts would
        help, or a sentence.
    """
    if any(part.estimate.n_seeds < 2 for part in parts):
        return None, "one seed gives no information about others; train at least one more"
    hopeless = [part for part in parts if part.estimate.value <= part.bound]
    if hopeless:  # one part below its bound contradicts the claim, so take the one that needs the fewest seeds
        plans = [_plan(p, p.estimate.value - p.bound - p.margin, p.bound + p.margin, alpha) for p in hopeless]
        return min(plans, key=lambda plan: plan[0] or math.inf)
    plans = [_plan(part, part.estimate.value - part.bound, part.bound, alpha) for part in parts]
    return max(plans, key=lambda plan: plan[0] or math.inf)


def _plan(part: Part, effect: float, bound: float, alpha: float) -> tuple[int | None, str | None]:
    """Seeds that detect `effect` with 80 % power at two-sided level `alpha`, or None and the limiting factor."""
    if part.estimate.n_seeds < 2:
        return None, "seeds"
    plan = stats.seeds_needed(part.table - bound, effect, POWER, alpha, MAX_SEEDS)
    if plan["seeds"] is None:
        return None, str(plan["limit"])
    components = stats.variance_components(part.table)
    first = int(plan["seeds"])
    seeds = next((n for n in range(first, MAX_SEEDS + 1) if _finds(components, abs(effect), n, alpha)), None)
    return seeds, None if seeds else "seeds"


def _finds(components: stats.Components, effect: float, n_seeds: int, alpha: float) -> bool:
    """Whether n seeds suffice at the capped degrees of freedom: effect >= (t_alpha + t_power) standard errors."""
    n = components.n_prompts
    stderr = math.sqrt((components.seed + components.residual / n) / n_seeds + components.prompt / n)
    df = _capped(n - 1.0, n_seeds)
    return effect >= (stdtrit(df, 1 - alpha / 2) + stdtrit(df, POWER)) * stderr


def _reason(verdict: Verdict, parts: list[Part], lacks: list[str], needed: tuple[int | None, str | None]) -> str:
    """The reason for the verdict in one or two sentences."""
    if not parts:
        return f"not tested in this experiment: needs {', '.join(lacks)}"
    n, held = len(parts), sum(part.p_for < ALPHA for part in parts)
    if verdict == "supported":
        return "the comparison holds after correction" if n == 1 else f"all {n} comparisons hold after correction"
    if verdict == "contradicted":
        worst = min(parts, key=lambda part: part.p_against)
        against = sum(part.p_against < ALPHA for part in parts)
        one = "the comparison contradicts the claimed effect: "
        many = f"{against} of {n} comparisons contradict the claimed effect, most clearly {worst.label}{_on(worst)}: "
        return (one if n == 1 else many) + _amount(worst)
    alone = f"{held} of {n} comparisons hold on their own"
    if n == 1:
        alone = "the comparison holds on its own" if held else "the comparison does not exceed its bound"
    alone += ", but not after correction" if held == n and not lacks else ""
    untested = f"not tested in this experiment: needs {', '.join(lacks)}"
    return f"{alone}; {untested if lacks else _plan_in_words(*needed)}"


def _amount(part: Part) -> str:
    shown = _effect(part)
    return (
        f"{shown['effect']:.4g} {part.unit} [{shown['ci_low']:.4g}, {shown['ci_high']:.4g}], "
        f"claimed {shown['relation']} {shown['bound']:g}"
    )


def _plan_in_words(seeds: int | None, limit: str | None) -> str:
    if seeds:
        return f"if the effects stay as observed, {seeds} seeds would decide it (with {100 * POWER:g} % power)"
    if limit == "prompts":
        return "more seeds alone would not decide it, since the benchmarks have too few prompts for such an effect"
    if limit == "seeds":
        return f"not even {MAX_SEEDS} seeds would decide it if the effects stay as observed"
    return limit or "undecided"


def _round(value: float | None) -> float | None:
    """Round to seven significant digits, since machines differ in the last bits; infinity, not valid in JSON, is
    None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def verdicts(results: Results, evidence_of: Callable[[Results, str], Evidence] = Logs) -> list[dict[str, Any]]:
    """All verdicts under the first judge of the configuration, with the other judges' verdicts."""
    first, *others = results.experiment.judges
    records = decide(CLAIMS, evidence_of(results, first), first)
    for judge in others:
        for record, other in zip(records, decide(CLAIMS, evidence_of(results, judge), judge)):
            kept = ("verdict", "effect", "ci_low", "ci_high", "unit", "reason")
            record.setdefault("other_judges", {})[judge] = {key: other[key] for key in kept}
    return records


def main() -> None:
    """Command line: python -m reports.claims --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.claims", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    results = Results.load(parser.parse_args().config)
    write_json(results.folder / "claims.json", verdicts(results))


if __name__ == "__main__":
    main()
