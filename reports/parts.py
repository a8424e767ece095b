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

from scipy.special import stdtr, stdtrit

from eval import stats
from reports.evidence import Table

Verdict = Literal[
    "supported", "equivalent", "worse", "no gain that matters", "inconclusive", "untestable here", "not tested"
]

ALPHA = 0.025  # one-sided, the tail of a two-sided 95 % interval
# Satterthwaite's test is too liberal in the far tails that the correction needs if two or three seeds happen to agree:
# in simulations, 9 % of experiments with 2 seeds then reported a false "supported". With at most 3 degrees of freedom
# for each seed beyond the first it is 4.8 % with 2 seeds and at most 2.8 % with 3 or more, in the worst case.
MAX_DF_PER_SEED = 3
POWER = 0.8
MAX_SEEDS = 200


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

    @property
    def p_for(self) -> float:
        """One-sided p-value of "the effect is at most the bound"."""
        return _upper_tail(self.estimate, self.bound)

    @property
    def p_against(self) -> float:
        """One-sided p-value of "the effect is at least bound + margin"."""
        return 1.0 - _upper_tail(self.estimate, self.bound + self.margin)

    @property
    def p_worse(self) -> float:
        """One-sided p-value of "the effect is at least the bound"."""
        return 1.0 - _upper_tail(self.estimate, self.bound)

    @property
    def p_equivalent(self) -> float:
        """P-value of "the effect is at least `margin` away from the bound"; 1 without a margin."""
        if not self.margin:
            return 1.0
        return max(self.p_against, _upper_tail(self.estimate, self.bound - self.margin))

    @property
    def p_superior(self) -> float:
        """One-sided p-value of "the effect is at most 0", for a part that only claims not to be worse."""
        return _upper_tail(self.estimate, 0.0)

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
    """

    seeds: int | None
    direction: Literal["for", "against"] | None
    limit: str | None = None

    @property
    def cost(self) -> float:
        """Seeds, infinite if out of reach."""
        return math.inf if self.seeds is None else self.seeds


ONE_SEED = Plan(None, None, "one seed gives no information about others; train at least one more")


def plan(part: Part, alpha: float) -> Plan:
    """Seeds that decide a part with 80 % power at two-sided level `alpha`, in the direction of its estimate."""
    if part.estimate.n_seeds < 2:
        return ONE_SEED
    above = part.estimate.value > part.bound
    threshold = part.bound if above else part.bound + part.margin
    seeds, limit = seeds_for(part, part.estimate.value - threshold, threshold, alpha)
    return Plan(seeds, "for" if above else "against", limit)


def plan_of_claim(parts: Sequence[Part], alpha: float) -> Plan:
    """Seeds that decide a conjunction: one part below its bound refutes it, so the fewest of those, else the most."""
    plans = [plan(part, alpha) for part in parts]
    if ONE_SEED in plans:
        return ONE_SEED
    against = [plan for plan in plans if plan.direction == "against"]
    return min(against, key=lambda p: p.cost) if against else max(plans, key=lambda p: p.cost)


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
    n = components.n_prompts
    stderr = math.sqrt((components.seed + components.residual / n) / n_seeds + components.prompt / n)
    df = _capped(n - 1.0, n_seeds)
    return effect >= (stdtrit(df, 1 - alpha / 2) + stdtrit(df, POWER)) * stderr
