"""Agreement statistics on arrays: judges with themselves, with each other, and with people.

Ratings are a (raters, items) table, with NaN for a missing rating. Categories are numbers, for a verdict for example 0
(the first answer wins), 0.5 (a tie) and 1.

| question | function |
| --- | --- |
| the share of equal ratings | `percent_agreement` |
| the same beyond chance, two raters | `cohen_kappa`, weighted where categories are ordered |
| the same beyond chance, any number of raters, ratings missing | `krippendorff_alpha` |
| does a judge repeat itself? | `retest` |
| does the order of two answers matter? | `order_effects` |
| is one judge stricter than another? | `bland_altman` |
| what do a judge's errors do to a win rate? | `corrected_win_rate` |
| what could unreadable judgments hide? | `bounds_over_unreadable` |

Intervals come from `bootstrap_items`: items are resampled, all ratings of an item together, and with `clusters` all
items of a question together (two turns of one question, or one question answered by many models, are not independent).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import krippendorff
import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.stats import CONFIDENCE, N_BOOTSTRAP, Estimate, percentile_interval, resample_counts

Floats = NDArray[np.float64]
Weights = Literal["nominal", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]


def percent_agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of items that two raters rate the same, 0 to 1.

    Args:
        a: (items,) of one rater; NaN if missing.
        b: (items,) of the other.

    Returns:
        NaN if no item has both ratings.
    """
    a, b = _both(a, b)
    return float(np.mean(a == b)) if len(a) else float("nan")


def cohen_kappa(a: ArrayLike, b: ArrayLike, weights: Weights = "nominal") -> float:
    """Agreement of two raters beyond the chance agreement that their marginal frequencies imply.

    Args:
        a: (items,) of one rater, any set of numbers as categories; NaN if missing.
        b: (items,) of the other.
        weights: "nominal" counts all disagreements equally; "linear" and "quadratic" by the distance of the categories'
            ranks, and its square.

    Returns:
        At most 1; 0 at chance level. NaN if no item has both ratings, or if both raters always use the same single
        category, which leaves chance agreement undefined.

    Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960);
    with weights Cohen, "Weighted kappa", Psychological Bulletin 70 (1968).
    """
    a, b = _both(a, b)
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    if len(values) < 2:
        return float("nan")
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (codes[: len(a)], codes[len(a) :]), 1)
    ranks = np.arange(len(values))
    distance = np.abs(ranks[:, None] - ranks).astype(float)
    cost = {"nominal": (distance > 0).astype(float), "linear": distance, "quadratic": distance**2}[weights]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / len(a)
    return float(1 - (cost * table).sum() / (cost * expected).sum())


def krippendorff_alpha(ratings: ArrayLike, level: Level = "nominal") -> float:
    """Reliability of any number of raters, with ratings missing: 1 - observed / expected disagreement.

    Args:
        ratings: (raters, items); NaN if a rater did not rate an item. Items with a single rating do not count.
        level: how far apart two categories are: "nominal" all alike, "ordinal" by the number of ratings between them,
            "interval" by their squared difference.

    Returns:
        At most 1; 0 at chance level. NaN if no item has two ratings, or all ratings are the same.

    Source: Krippendorff, Content Analysis (2nd edition, 2004), chapter 11; "Computing Krippendorff's
    alpha-reliability" (2011) for the coincidence matrix.
    """
    table = np.atleast_2d(np.asarray(ratings, float))
    present = ~np.isnan(table)
    table, present = table[:, present.sum(axis=0) >= 2], present[:, present.sum(axis=0) >= 2]
    values = np.unique(table[present])
    if len(values) < 2:
        return float("nan")
    if level == "interval":
        return _alpha_of_intervals(table, present)
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))


def _alpha_of_intervals(table: Floats, present: NDArray[np.bool_]) -> float:
    """Alpha from sums of squares: the package's matrix of 3,000 different ratings takes 67 GiB."""
    raters, kept = present.sum(axis=0), table[present]
    squares = np.nansum((table - np.nanmean(table, axis=0)) ** 2, axis=0)
    observed = 2 * (raters / (raters - 1) * squares).sum() / len(kept)
    expected = 2 * ((kept - kept.mean()) ** 2).sum() / (len(kept) - 1)
    return float(1 - observed / expected)


def bootstrap_items(
    statistic: Callable[[Floats], float],
    ratings: ArrayLike,
    clusters: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A statistic of a table of ratings with a percentile bootstrap interval over items.

    Args:
        statistic: of a table (raters, items), such as `krippendorff_alpha`; NaN if undefined.
        ratings: (raters, items).
        clusters: (items,) cluster label of each item; items of a cluster are resampled together. None: each item is its
            own cluster.
        n_bootstrap: resamples.
        seed: of the resamples.
        confidence: nominal coverage.

    Returns:
        The estimate; the interval is NaN if fewer than two clusters, or too few resamples, have a value.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3; for resampling clusters Davison &
    Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
    """
    table = np.atleast_2d(np.asarray(ratings, float))
    n_items = table.shape[1]
    _, groups = np.unique(np.arange(n_items) if clusters is None else np.asarray(clusters), return_inverse=True)
    n_groups = int(groups.max()) + 1 if n_items else 0
    value = statistic(table) if n_items else float("nan")
    replicates = np.array([])
    if n_groups >= 2 and not np.isnan(value):
        counts = resample_counts(n_groups, n_bootstrap, seed)
        replicates = np.array([statistic(np.repeat(table, drawn[groups], axis=1)) for drawn in counts])
        replicates = replicates[~np.isnan(replicates)]
    enough = len(replicates) >= n_bootstrap // 2
    low, high = percentile_interval(replicates, confidence) if enough else (float("nan"), float("nan"))
    stderr = float(replicates.std(ddof=1)) if enough else None
    method = f"percentile bootstrap over {'items' if clusters is None else 'clusters of items'}"
    return Estimate(value, low, high, stderr, None, None, 0, n_items, method, confidence)


@dataclass(frozen=True)
class Retest:
    """Repeatability of a judge (see `retest`).

    Attributes:
        n: items with at least two ratings.
        exact: share of pairs of ratings of one item that are equal.
        flips: share of such pairs that fall on different sides of `middle`; None without a middle.
        noise: standard deviation of repeated ratings of one item, in the unit of the ratings.
        spread: standard deviation of the items' own means beyond the noise, in the same unit.
        reliability: intraclass correlation ICC(1,1) of a single rating, at most 1; NaN if nothing varies.
        stderr_of_mean: standard error of the mean over items due to the judge's noise alone.
    """

    n: int
    exact: float
    flips: float | None
    noise: float
    spread: float
    reliability: float
    stderr_of_mean: float


def retest(ratings: ArrayLike, middle: float | None = None) -> Retest | None:
    """Repeatability of one judge from repeated ratings of the same items.

    With a single rating per item, as in benchmarks, an interval over prompts already includes this noise: the spread of
    the items' values is the sum of both. So `stderr_of_mean` is part of that interval, not an addition to it; it shows
    what repeated judging could gain.

    Args:
        ratings: (repeats, items); NaN if a rating could not be read.
        middle: a value of indifference, such as 0.5 for a preference.

    Returns:
        None if no item has two ratings.

    Source: Shrout & Fleiss, "Intraclass correlations", Psychological Bulletin 86 (1979), case 1; unequal numbers of
    ratings as in Searle, Casella & McCulloch, Variance Components (1992), section 3.6.
    """
    table = np.atleast_2d(np.asarray(ratings, float))
    present = ~np.isnan(table)
    kept = present.sum(axis=0) >= 2
    table, present = table[:, kept], present[:, kept]
    n, repeats = table.shape[1], present.sum(axis=0)
    if not n:
        return None
    means = np.nanmean(table, axis=0)
    within = float(np.nansum((table - means) ** 2) / (repeats - 1).sum())
    total, grand = repeats.sum(), float(np.nansum(table) / repeats.sum())
    balance = (total - (repeats**2).sum() / total) / (n - 1) if n > 1 else 1.0  # the number of repeats where equal
    between = float((repeats * (means - grand) ** 2).sum() / (n - 1)) if n > 1 else float("nan")
    spread = (between - within) / balance
    return Retest(
        n=n,
        exact=_pairs(table, lambda x, y: x == y),
        flips=None if middle is None else _pairs(table, lambda x, y: (x - middle) * (y - middle) < 0),
        noise=within**0.5,
        spread=max(spread, 0.0) ** 0.5,
        reliability=spread / (spread + within) if spread + within > 0 else float("nan"),
        stderr_of_mean=(within / n) ** 0.5,
    )


def _pairs(table: Floats, holds: Callable[[Floats, Floats], NDArray[np.bool_]]) -> float:
    """Share of all pairs of ratings of one item for which something holds."""
    first, second = np.triu_indices(len(table), k=1)
    x, y = table[first], table[second]
    rated = ~(np.isnan(x) | np.isnan(y))
    return float(holds(x, y)[rated].mean())


def order_effects(straight: ArrayLike, swapped: ArrayLike, tie_width: float = 0.0) -> dict[str, float | int | None]:
    """Effects of the order in which two answers are shown, from judging each comparison in both orders.

    Args:
        straight: (comparisons,) how far the judge favours an answer shown first, 0 to 1; NaN if unreadable.
        swapped: how far it favours the same answer shown second.
        tie_width: values closer to 0.5 than this count as a tie (0 for verdicts in words).

    Returns:
        {n, consistent, reversed, tie_against_win (shares that sum to 1: the same winner or a tie twice; opposite
        winners; a tie in one order and a winner in the other), first_slot_advantage (mean gain of the answer shown
        first, -0.5 to 0.5)}; all but n are None if no comparison has both.

    Source: Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena" (2023), section 3.3, which counts
    reversals; Shi et al., "Judging the judges: position bias in LLM-as-a-judge" (2024) for ties.
    """
    straight, swapped = _both(straight, swapped)
    if not len(straight):
        return {
            "n": 0,
            "consistent": None,
            "reversed": None,
            "tie_against_win": None,
            "first_slot_advantage": None,
        }
    one, two = _winner(straight, tie_width), _winner(swapped, tie_width)
    return {
        "n": len(straight),
        "consistent": float(np.mean(one == two)),
        "reversed": float(np.mean(one * two < 0)),
        "tie_against_win": float(np.mean((one != two) & (one * two == 0))),
        "first_slot_advantage": float(np.mean(straight - swapped) / 2),
    }


def _winner(shares: Floats, tie_width: float) -> Floats:
    """1 if the answer wins, -1 if it loses, 0 for a tie."""
    gap = shares - 0.5
    return np.where(np.abs(gap) <= tie_width, 0.0, np.sign(gap))


def bland_altman(a: ArrayLike, b: ArrayLike) -> dict[str, float | int] | None:
    """How much higher one judge rates than another, with the limits that contain 95 % of the single differences.

    Args:
        a: (items,) of one judge; NaN if missing.
        b: (items,) of the other.

    Returns:
        {n, bias, low, high}, in the unit of the ratings; None with fewer than two items.

    Source: Bland & Altman, "Statistical methods for assessing agreement between two methods of clinical measurement",
    The Lancet 327 (1986).
    """
    a, b = _both(a, b)
    if len(a) < 2:
        return None
    bias, half = float(np.mean(a - b)), 1.96 * float(np.std(a - b, ddof=1))
    return {"n": len(a), "bias": bias, "low": bias - half, "high": bias + half}


def corrected_win_rate(
    judged: ArrayLike,
    judge_of_labelled: ArrayLike,
    human: ArrayLike,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate | None:
    """Estimate the win rate that people would give from a judge's, with the judge's error rates in the interval.

    For the model's comparisons only the judge's decisions are known; its error rates are estimated from other
    comparisons that people also decided. This assumes equal error rates on both: if the judge errs more often on these
    answers than on the labelled ones, the correction is biased.

    Args:
        judged: (comparisons,) 1 if the judge lets the model win, 0 if it loses; NaN (ties) are left out.
        judge_of_labelled: (labelled,) the judge's decisions where people decided as well, 0 or 1.
        human: (labelled,) the people's decisions, 0 or 1.
        n_bootstrap: resamples, of both samples independently.
        seed: of the resamples.
        confidence: nominal coverage.

    Returns:
        The share of wins, 0 to 1; None if the judge is no better than chance on the labelled comparisons, which leaves
        nothing to correct with, or a class has no labelled comparison.

    Source: Rogan & Gladen, "Estimating prevalence from the results of a screening test", American Journal of
    Epidemiology 107 (1978).
    """
    judged = np.asarray(judged, float)
    judged = judged[~np.isnan(judged)]
    decided, human = _both(judge_of_labelled, human)
    if not len(judged) or not (0 < human.mean() < 1 if len(human) else False):
        return None
    right = np.array([(decided[human == 1] == 1).mean(), (decided[human == 0] == 0).mean()])
    if right.sum() <= 1:
        return None
    rng = np.random.default_rng(seed)
    shares = rng.binomial(len(judged), judged.mean(), n_bootstrap) / len(judged)
    sizes = [int((human == 1).sum()), int((human == 0).sum())]
    drawn = [rng.binomial(n, share, n_bootstrap) / n for n, share in zip(sizes, right)]
    youden = drawn[0] + drawn[1] - 1
    usable = youden > 0
    replicates = np.clip((shares[usable] + drawn[1][usable] - 1) / youden[usable], 0, 1)
    low, high = percentile_interval(replicates, confidence)
    value = float(np.clip((judged.mean() + right[1] - 1) / (right.sum() - 1), 0, 1))
    method = "Rogan-Gladen, parametric bootstrap of judge and labels"
    return Estimate(value, low, high, float(replicates.std(ddof=1)), None, None, 0, len(judged), method, confidence)


def bounds_over_unreadable(values: ArrayLike, lowest: float, highest: float) -> tuple[float, float]:
    """Bounds on the mean over all possible values of the unreadable judgments.

    Args:
        values: (items,), NaN if unreadable.
        lowest: lowest value that a judgment can have.
        highest: highest value that a judgment can have.

    Returns:
        The mean with all unreadable ones at the lowest, and at the highest value; NaN without items.

    Source: Manski, "Nonparametric bounds on treatment effects", American Economic Review 80 (1990).
    """
    values = np.asarray(values, float)
    if not len(values):
        return float("nan"), float("nan")
    low, high = (np.where(np.isnan(values), end, values).mean() for end in (lowest, highest))
    return float(low), float(high)


def _both(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """The items that both raters rated."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"expected one rating per item from each rater, in the same order; found {a.shape} and {b.shape}"
        )
    kept = ~(np.isnan(a) | np.isnan(b))
    return a[kept], b[kept]
