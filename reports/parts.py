"""One part of a claim: an estimated effect, what can be said about it, and how many runs would say more.

The claimed effect is above `bound`, and `margin` is the smallest difference from it that matters. Four one-sided tests
on the t-distribution of the estimate (`eval.stats`: seeds and prompts as crossed random effects) lead to a state:

| state | shown, after correction |
| --- | --- |
| equivalent | the effect is within `margin` of the bound on both sides (two one-sided tests, Schuirmann 1987) |
| supported | the effect is above the bound |
| worse | the effect is below the bound |
| no gain that matters | the effect is below bound + margin |
| inconclusive | none of these |

The first that holds is the state: a difference that is certain but too small to matter is "equivalent" whichever method
it favours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from eval import stats
from reports.evidence import Table
from reports.sequential import FIXED, Look

Verdict = Literal[
    "supported", "equivalent", "worse", "no gain that matters", "inconclusive", "untestable here", "not tested"
]

DECIDED = ("supported", "equivalent", "worse", "no gain that matters")  # verdicts that later looks do not change

ALPHA = 0.025  # one-sided, the tail of a two-sided 95 % interval
# Satterthwaite's test is too liberal in the far tails that the correction needs if two or three seeds happen to agree:
# in simulations, 9 % of experiments with 2 seeds then reported a false "supported". With at most 3 degrees of freedom
# for each seed beyond the first it is 4.8 % with 2 seeds and at most 2.8 % with 3 or more, in the worst case.
MAX_DF_PER_SEED = 3
POWER = 0.8
MAX_SEEDS = 200
FUTILE = 0.1  # chance of a decision by the last look, below which more worlds are not worth their cost
PLAN_CONFIDENCE = 0.8  # of the interval around the number of seeds to decide


@dataclass(frozen=True)
class Part:
    """One estimated part of a claim.

    Attributes:
        label: what is compared.
        benchmark: "" for a measure.
        metric: "" for a measure.
        unit: of `estimate`.
        bound: value that the effect is claimed to exceed.
        margin: smallest difference from the bound that matters; 0 if every one does.
        table: (seeds, prompts) values.
        estimate: mean and 95 % interval of the table.
        sign: -1 if the quantity is claimed to be small; table, bound and estimate are then negated.
        title: its role in the claim in a few words; "" if the label says enough.
        decides: False for a secondary metric, which is estimated and shown only.
        untestable: why no result could show it here; "" if one could.
        look: the registered look of the estimate; p-values are of all looks together (`reports.sequential`).
        before: the same part at the previous look; None at the first.
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
    title: str = ""
    decides: bool = True
    untestable: str = ""
    look: Look = FIXED
    before: Part | None = field(default=None, repr=False)

    @property
    def p_for(self) -> float:
        """One-sided p-value of "the effect is at most the bound"."""
        return self._over_looks("p_for", _upper_tail(self.estimate, self.bound))

    @property
    def p_against(self) -> float:
        """One-sided p-value of "the effect is at least bound + margin"."""
        return self._over_looks("p_against", _lower_tail(self.estimate, self.bound + self.margin))

    @property
    def p_worse(self) -> float:
        """One-sided p-value of "the effect is at least the bound"."""
        return self._over_looks("p_worse", _lower_tail(self.estimate, self.bound))

    @property
    def p_equivalent(self) -> float:
        """P-value of "the effect is at least `margin` away from the bound"; 1 without a margin."""
        if not self.margin:
            return 1.0
        above = _lower_tail(self.estimate, self.bound + self.margin)
        return self._over_looks("p_equivalent", max(above, _upper_tail(self.estimate, self.bound - self.margin)))

    @property
    def p_superior(self) -> float:
        """One-sided p-value of "the effect is at most 0", for a part that only claims not to be worse."""
        return self._over_looks("p_superior", _upper_tail(self.estimate, 0.0))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies the part within its claim, at every look."""
        return self.title, self.label, self.benchmark, self.metric

    def _over_looks(self, name: str, p_value: float) -> float:
        """The p-value of all looks so far, from that of this look alone."""
        overall = self.look.overall(p_value)
        return overall if self.before is None else min(overall, getattr(self.before, name))

    @property
    def strength(self) -> float:
        """Standard errors above the bound; the weakest part of a claim has the lowest."""
        distance = self.estimate.value - self.bound
        return distance / self.estimate.stderr if self.estimate.stderr else math.copysign(math.inf, distance)

    @property
    def smallest_effect(self) -> float | None:
        """The true difference from the bound that a two-sided test at 5 % finds with 80 % power; None for one seed."""
        estimate = self.estimate
        if estimate.n_seeds < 2 or estimate.stderr is None or estimate.df is None:
            return None
        return stats.smallest_detectable(estimate.stderr, _capped(estimate.df, estimate.n_seeds), POWER)


def _upper_tail(estimate: stats.Estimate, bound: float) -> float:
    """One-sided p-value against "mean <= bound"; 1/2 for a single seed, which carries no information about others."""
    if estimate.stderr is None or estimate.n_seeds < 2:
        return 0.5
    distance = estimate.value - bound
    if estimate.stderr == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(_capped(estimate.df, estimate.n_seeds), -distance / estimate.stderr))


def _lower_tail(estimate: stats.Estimate, bound: float) -> float:
    """One-sided p-value against "mean >= bound"."""
    return 1.0 - _upper_tail(estimate, bound)


def _capped(df: float, n_seeds: int) -> float:
    return min(df, MAX_DF_PER_SEED * (n_seeds - 1.0))


# ---------------------------------------------------------------------------------------------------------------------
# States


def states(parts: Sequence[Part]) -> list[Verdict]:
    """The state of each part, corrected over these parts: Hochberg for the claim, Holm for the rest.

    Hochberg's procedure supports all parts if all hold uncorrected, as the intersection-union test of their conjunction
    does, so a supported claim has supported parts.
    """
    if not parts:
        return []
    supported = stats.hochberg([part.p_for for part in parts])
    others = [stats.holm([getattr(part, name) for part in parts]) for name in ("p_equivalent", "p_worse", "p_against")]
    return [_state(*ps) for ps in zip(supported, *others)]


def _state(p_for: float, p_equivalent: float, p_worse: float, p_against: float) -> Verdict:
    if p_equivalent < ALPHA:
        return "equivalent"
    if p_for < ALPHA:
        return "supported"
    if p_worse < ALPHA:
        return "worse"
    return "no gain that matters" if p_against < ALPHA else "inconclusive"


def refutation(parts: Sequence[Part], n_claims: int) -> tuple[Verdict, Part]:
    """How the parts of a refuted claim refute it: the state, and the part that shows it most clearly.

    Args:
        parts: of a claim of which one part rules out a gain that matters.
        n_claims: number of claims that were tested; Bonferroni's correction, on top of Holm's over the parts.
    """
    worse, equal = (
        [n_claims * p < ALPHA for p in stats.holm([getattr(part, name) for part in parts])]
        for name in ("p_worse", "p_equivalent")
    )
    found: dict[Verdict, list[Part]] = {
        "worse": [part for part, w, e in zip(parts, worse, equal) if w and not e],
        "equivalent": [part for part, e in zip(parts, equal) if e],
        "no gain that matters": list(parts),
    }
    state = next(state for state, shown in found.items() if shown)
    return state, min(found[state], key=lambda part: (part.p_against, part.strength))


# ---------------------------------------------------------------------------------------------------------------------
# Planning


@dataclass(frozen=True)
class Plan:
    """How many runs would decide a part or a claim if the effects stay as observed.

    Attributes:
        seeds: training seeds, or worlds if there are several; None if out of reach.
        direction: what they would show.
        limit: why `seeds` is None: "seeds" if more than MAX_SEEDS are needed, "prompts" if more prompts would help, or
            a sentence; None otherwise.
        interval: the same number at both ends of the effect's 80 % interval, fewest first; None at an end that would
            take more than MAX_SEEDS, or be decided in the other direction.
    """

    seeds: int | None
    direction: Literal["for", "against"] | None
    limit: str | None = None
    interval: tuple[int | None, int | None] = (None, None)

    @property
    def cost(self) -> float:
        """Seeds, infinite if out of reach."""
        return math.inf if self.seeds is None else self.seeds

    def in_words(self, replicates: str) -> str:
        """The plan as part of a sentence; `replicates` is "seeds" or "worlds"."""
        if self.seeds:
            side = "in favour of the claim" if self.direction == "for" else "against the claim"
            low, high = self.interval
            reach = f"{low} to {high}" if high else f"{low} or more"
            return (
                f"if the effects stay as observed, {self.seeds} {replicates} would decide it {side} "
                f"(with {100 * POWER:g} % power; {reach} over the effect's {100 * PLAN_CONFIDENCE:g} % interval)"
            )
        if self.limit == "prompts":
            return f"more {replicates} alone would not decide it, since there are too few prompts for such an effect"
        if self.limit == "seeds":
            return f"not even {MAX_SEEDS} {replicates} would decide it if the effects stay as observed"
        return self.limit or "undecided"


ONE_SEED = Plan(None, None, "one seed gives no information about others; train at least one more")


def plan(part: Part, alpha: float) -> Plan:
    """Seeds that decide a part with 80 % power at two-sided level `alpha`, in the direction of its estimate."""
    estimate = part.estimate
    if estimate.n_seeds < 2:
        return ONE_SEED
    above = estimate.value > part.bound
    threshold = part.bound if above else part.bound + part.margin
    distance = estimate.value - threshold
    seeds, limit = seeds_for(part, distance, threshold, alpha)
    if seeds is None:
        return Plan(None, "for" if above else "against", limit)
    half = float(stdtrit(_capped(estimate.df, estimate.n_seeds), (1 + PLAN_CONFIDENCE) / 2)) * estimate.stderr
    near = max(abs(distance) - half, 0.0)
    low = seeds_for(part, abs(distance) + half, threshold, alpha)[0]
    high = seeds_for(part, near, threshold, alpha)[0] if near else None
    low = max(low, min(seeds, estimate.n_seeds + 1))  # the seeds so far did not decide it
    return Plan(seeds, "for" if above else "against", None, (low, high))


def plan_of_claim(parts: Sequence[Part], alpha: float) -> Plan:
    """Seeds that decide a conjunction: one part below its bound refutes it, so the fewest of those, else the most."""
    plans = [plan(part, alpha) for part in parts]
    if ONE_SEED in plans:
        return ONE_SEED
    against = [plan for plan in plans if plan.direction == "against"]
    return min(against, key=lambda p: p.cost) if against else max(plans, key=lambda p: p.cost)


def chance_to_decide(parts: Sequence[Part], last: Look, overall: float) -> float:
    """Probability that the last look decides a conjunction of parts, given what is known now.

    The predictive probability under a flat prior, from the interim estimate's distribution and the standard error that
    the last look will have (Spiegelhalter, Freedman & Blackburn, Controlled Clinical Trials 7, 1986). Parts are treated
    as dependent: all hold as often as the least likely one, one is refuted as often as the most likely one.

    Args:
        parts: the deciding parts at the current look.
        last: the last look.
        overall: one-sided level of the claim over all looks, after correction over the claims.
    """
    chances = [_chances(part, last, overall) for part in parts]
    return min(1.0, min(above for above, _ in chances) + max(below for _, below in chances))


def _chances(part: Part, last: Look, overall: float) -> tuple[float, float]:
    """Predictive probabilities that the last look finds a part above its bound, or below bound + margin."""
    now = part.estimate
    if now.n_seeds < 2:
        return 1.0, 1.0
    components = stats.variance_components(part.table)
    stderr = _stderr(components, last.n)
    df, at_last = _capped(now.df, now.n_seeds), _capped(components.n_prompts - 1.0, last.n)
    reach = float(stdtrit(at_last, 1 - last.level(overall))) * stderr
    spread = math.sqrt(max(now.stderr**2 - stderr**2, 0.0)) or np.finfo(float).tiny
    above = (now.value - reach - part.bound) / spread
    below = (part.bound + part.margin - reach - now.value) / spread
    return float(stdtr(df, above)), float(stdtr(df, below))


def seeds_for(part: Part, effect: float, threshold: float, alpha: float) -> tuple[int | None, str | None]:
    """Seeds that tell a true `effect` beyond `threshold` from 0 with 80 % power, or None and the limiting factor."""
    found = stats.seeds_needed(part.table - threshold, effect, POWER, alpha, MAX_SEEDS)
    if found["seeds"] is None:
        return None, str(found["limit"])
    components = stats.variance_components(part.table)
    first = int(found["seeds"])
    seeds = next((n for n in range(first, MAX_SEEDS + 1) if _finds(components, abs(effect), n, alpha)), None)
    return seeds, None if seeds else "seeds"


def _finds(components: stats.Components, effect: float, n_seeds: int, alpha: float) -> bool:
    """Whether n seeds suffice at the capped degrees of freedom: effect >= (t_alpha + t_power) standard errors."""
    df = _capped(components.n_prompts - 1.0, n_seeds)
    return effect >= (stdtrit(df, 1 - alpha / 2) + stdtrit(df, POWER)) * _stderr(components, n_seeds)


def _stderr(components: stats.Components, n_seeds: int) -> float:
    """The expected standard error of the mean over that many seeds."""
    n = components.n_prompts
    return math.sqrt((components.seed + components.residual / n) / n_seeds + components.prompt / n)
