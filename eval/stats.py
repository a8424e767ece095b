"""Intervals, tests and power for scores that vary over prompts and over training seeds.

All functions are pure, vectorised and seeded. The two layouts are

- `(prompts,)`: one value per prompt, from one run;
- `(seeds, prompts)`: one row per training run, with the same prompts in the same order in every row.

Which interval to use:

| question | function |
| --- | --- |
| this one run, other prompts | `bootstrap_mean`, `paired_bootstrap` |
| the method, other seeds *and* other prompts | `mean_over_seeds_and_prompts`, `compare` |
| the same where the score is no mean over prompts (LC, SC) | the same, on the score plus influence values |
| a value that exists only once per run (an annotation ratio) | `mean_over_seeds` |
| the same by resampling alone, with ten seeds or more | `two_level_bootstrap` |

**Few seeds.** A percentile bootstrap of three seeds has at most ten different means, lacks the factor S / (S - 1),
and leaves the variance itself uncertain: where seeds matter most, its 95 % interval covers the truth in 74 % of cases.
A t-interval on the seeds' means accounts for seeds but ignores prompts, which all seeds share. So `compare` and
`mean_over_seeds_and_prompts` estimate both variances from the crossed layout and use a t-distribution with
Satterthwaite's degrees of freedom: near 2 with three seeds that disagree (t = 4.3), near the number of prompts where
seeds do not matter. Simulated coverage at nominal 95 %, 200 prompts, prompt SD 0.2, residual SD 0.3 (`python -m
eval.stats` prints this table):

| seeds | seed SD | this module | t on seed means | two-level percentiles | prompts only |
| --- | --- | --- | --- | --- | --- |
| 2 | 0.0 | 0.97 | 0.93 | 0.98 | 0.95 |
| 2 | 0.02 | 0.95 | 0.95 | 0.96 | 0.90 |
| 2 | 0.05 | 0.92 | 0.94 | 0.88 | 0.70 |
| 2 | 0.2 | 0.91 | 0.95 | 0.66 | 0.22 |
| 3 | 0.0 | 0.97 | 0.90 | 0.98 | 0.95 |
| 3 | 0.02 | 0.96 | 0.92 | 0.96 | 0.91 |
| 3 | 0.05 | 0.92 | 0.93 | 0.88 | 0.70 |
| 3 | 0.2 | 0.92 | 0.94 | 0.74 | 0.25 |
| 5 | 0.0 | 0.97 | 0.82 | 0.98 | 0.96 |
| 5 | 0.02 | 0.96 | 0.89 | 0.97 | 0.93 |
| 5 | 0.05 | 0.94 | 0.92 | 0.93 | 0.78 |
| 5 | 0.2 | 0.94 | 0.94 | 0.84 | 0.28 |
| 10 | 0.0 | 0.96 | 0.65 | 0.97 | 0.95 |
| 10 | 0.02 | 0.95 | 0.75 | 0.97 | 0.93 |
| 10 | 0.05 | 0.94 | 0.87 | 0.94 | 0.83 |
| 10 | 0.2 | 0.94 | 0.94 | 0.89 | 0.35 |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr, nctdtrinc, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
N_BOOTSTRAP = 2000  # the ends of a 95 % interval then move by about 0.05 standard errors between bootstrap seeds


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the estimate, in the unit of the input.
        low: lower end of the interval.
        high: upper end of the interval.
        stderr: standard error; None if it cannot be estimated.
        p_value: two-sided, against zero; None if there is no test.
        df: degrees of freedom of the t-distribution; None for a bootstrap.
        n_seeds: number of training runs; 0 if not applicable.
        n_prompts: number of prompts without a missing value; 0 if not applicable.
        method: how the interval was computed, for the table's footnote.
        confidence: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    stderr: float | None
    p_value: float | None
    df: float | None
    n_seeds: int
    n_prompts: int
    method: str
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Components:
    """Variance components of a crossed seeds x prompts table (see `variance_components`), in squared units of the
    input.

    Attributes:
        seed: variance between training runs (0 if the runs differ less than expected from the residual alone).
        prompt: variance between prompts.
        residual: what is left: seed x prompt interaction and judging noise.
        n_seeds: runs in the table.
        n_prompts: prompts in the table.
    """

    seed: float
    prompt: float
    residual: float
    n_seeds: int
    n_prompts: int


@lru_cache(maxsize=4)  # models of one benchmark share their resamples
def resample_counts(n: int, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> NDArray[np.int64]:
    """How often each of n prompts is drawn in each bootstrap resample.

    The same n, number and seed give the same resamples, so scores of different models that use them are paired.

    Returns:
        Int array (n_bootstrap, n), read-only; each row sums to n.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979); the counts are
    multinomial.
    """
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=n_bootstrap)
    counts.setflags(write=False)
    return counts


def percentile_interval(replicates: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The central `confidence` share of bootstrap replicates (Efron's percentile interval)."""
    low, high = np.quantile(np.asarray(replicates, float), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_mean(
    values: ArrayLike, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean over prompts with a percentile bootstrap interval, which does not cover other training seeds.

    Args:
        values: (prompts,); missing values (NaN) are dropped.
        n_bootstrap: resamples.
        seed: of the resamples.
        confidence: nominal coverage.

    Raises:
        ValueError: fewer than two values.
    """
    kept = _complete(_matrix(np.asarray(values, float)))[0]
    replicates = resample_counts(len(kept), n_bootstrap, seed) @ kept / len(kept)
    low, high = percentile_interval(replicates, confidence)
    p_value = 2 * (1 + min((replicates <= 0).sum(), (replicates >= 0).sum())) / (n_bootstrap + 1)
    return Estimate(
        value=float(kept.mean()),
        low=low,
        high=high,
        stderr=float(replicates.std(ddof=1)),
        p_value=float(min(1.0, p_value)),
        df=None,
        n_seeds=1,
        n_prompts=len(kept),
        method="percentile bootstrap over prompts (one run)",
        confidence=confidence,
    )


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean difference a - b of two runs over the same prompts, resampled in pairs.

    Args:
        a: (prompts,) values of one run.
        b: (prompts,) values of the other run, same order.
        n_bootstrap: resamples.
        seed: of the resamples.
        confidence: nominal coverage.

    Returns:
        The difference; its p-value is twice the smaller tail of replicates beyond zero.

    Raises:
        ValueError: the shapes differ, or fewer than two prompts have both values.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), sections 8 and 13; for paired system
    comparison Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004.
    """
    return bootstrap_mean(_difference(a, b), n_bootstrap, seed, confidence)


def mean_over_seeds(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of one value per run with Student's t-interval over runs; prompts are treated as fixed.

    Args:
        values: (seeds,), for instance one length-controlled win rate per run.
        confidence: nominal coverage.

    Returns:
        With a single seed the interval is infinite, since one run gives no information about others.

    Raises:
        ValueError: no value.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("mean_over_seeds needs at least one run that has a value; found none")
    n = len(values)
    stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return _t_estimate(float(values.mean()), stderr, float(n - 1), n, 0, "t over seeds", confidence)


def mean_over_seeds_and_prompts(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a method over training seeds and prompts together, with an interval that is valid for few seeds.

    Seeds and prompts are crossed random factors: value[s, q] = mean + seed[s] + prompt[q] + residual[s, q]. The
    variance of the grand mean is (max(MS_seed - MS_residual, 0) + MS_prompt) / (S Q), and its degrees of freedom are
    Satterthwaite's. The seed component is kept at or above zero, which makes the interval conservative.

    Args:
        values: (seeds, prompts); prompts with a missing value in any run are dropped.
        confidence: nominal coverage.

    Returns:
        With one seed the interval covers other prompts only, and `method` says so.

    Raises:
        ValueError: not a two-dimensional table, or fewer than two complete prompts.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2
    (1946); the crossed design is the p x i design of Brennan, Generalizability Theory (2001), chapter 2.
    """
    table = _complete(_matrix(values))
    n_seeds, n_prompts = table.shape
    value = float(table.mean())
    if n_seeds == 1:
        stderr = float(table.std(ddof=1) / np.sqrt(n_prompts))
        return _t_estimate(value, stderr, n_prompts - 1.0, 1, n_prompts, "t over prompts (one seed)", confidence)
    ms_seed, ms_prompt, ms_residual = _mean_squares(table)
    stderr, df = _grand_mean_error(ms_seed, ms_prompt, ms_residual, n_seeds, n_prompts)
    return _t_estimate(value, stderr, df, n_seeds, n_prompts, "t over seeds and prompts (Satterthwaite)", confidence)


def compare(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Paired test between two methods: effect a - b, interval and p-value, over seeds and prompts together.

    Rows are paired by seed (same data order, same world) and columns by prompt; the test is
    `mean_over_seeds_and_prompts` of the differences, so it remains valid if seeds are in fact independent.

    Args:
        a: (seeds, prompts) values of one method; a single run may be (prompts,).
        b: the same for the other method: same seeds, same prompts, same order.
        confidence: nominal coverage.

    Raises:
        ValueError: the shapes differ, or fewer than two prompts are complete.
    """
    return mean_over_seeds_and_prompts(_difference(a, b), confidence)


def interval_over_prompts(
    values: ArrayLike, scale: tuple[float, float] = (-np.inf, np.inf), confidence: float = CONFIDENCE
) -> tuple[float, float, float | None]:
    """Interval of one run's score over prompts, clipped to the score's scale, and its standard error.

    Args:
        values: (prompts,) in the unit of the scale. For a score that is not a mean over prompts, the score plus each
            prompt's influence on it (the infinitesimal jackknife).
        scale: lowest and highest possible score.
        confidence: nominal coverage.

    Returns:
        (low, high, standard error); the whole scale and None with a single prompt, which says nothing about others.

    Source: Student (1908), as in `mean_over_seeds_and_prompts`; for influence values Efron, The Jackknife, the
    Bootstrap and Other Resampling Plans (1982), chapter 6.
    """
    if len(values := np.asarray(values, float)) < 2:
        return *scale, None
    found = mean_over_seeds_and_prompts(values, confidence)
    return max(found.low, scale[0]), min(found.high, scale[1]), found.stderr


def two_level_bootstrap(
    values: ArrayLike, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Percentile bootstrap that resamples seeds and prompts together (the pigeonhole bootstrap).

    With fewer than about ten seeds, its interval is too narrow if seeds matter (see the table above); report
    `mean_over_seeds_and_prompts` instead. It is meant for comparison and for experiments with many seeds.

    Args:
        values: (seeds, prompts); prompts with a missing value in any run are dropped.
        n_bootstrap: resamples.
        seed: of the resamples.
        confidence: nominal coverage.

    Raises:
        ValueError: not a two-dimensional table, or fewer than two complete prompts.

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).
    """
    table = _complete(_matrix(values))
    n_seeds, n_prompts = table.shape
    seeds = resample_counts(n_seeds, n_bootstrap, seed)
    prompts = resample_counts(n_prompts, n_bootstrap, seed + 1)
    replicates = ((seeds @ table) * prompts).sum(axis=1) / table.size
    low, high = percentile_interval(replicates, confidence)
    tail = 1 + min((replicates <= 0).sum(), (replicates >= 0).sum())
    return Estimate(
        value=float(table.mean()),
        low=low,
        high=high,
        stderr=float(replicates.std(ddof=1)),
        p_value=float(min(1.0, 2 * tail / (n_bootstrap + 1))),
        df=None,
        n_seeds=n_seeds,
        n_prompts=n_prompts,
        method="percentile bootstrap over seeds and prompts",
        confidence=confidence,
    )


def variance_components(values: ArrayLike) -> Components:
    """Variance between seeds, between prompts, and in the residual.

    Args:
        values: (seeds, prompts), at least two seeds; for the power of a comparison, the table of differences.

    Returns:
        Analysis-of-variance estimates, negative ones set to zero.

    Raises:
        ValueError: fewer than two seeds or two complete prompts.

    Source: Searle, Casella & McCulloch, Variance Components (1992), section 4.3 (two-way crossed, random, no
    replication).
    """
    table = _complete(_matrix(values))
    n_seeds, n_prompts = table.shape
    if n_seeds < 2:
        raise ValueError("variance between seeds needs at least 2 seeds, found 1; train one more seed")
    ms_seed, ms_prompt, ms_residual = _mean_squares(table)
    return Components(
        seed=max(ms_seed - ms_residual, 0.0) / n_prompts,
        prompt=max(ms_prompt - ms_residual, 0.0) / n_seeds,
        residual=ms_residual,
        n_seeds=n_seeds,
        n_prompts=n_prompts,
    )


def power(
    components: Components,
    effect: float,
    n_seeds: int,
    n_prompts: int | None = None,
    alpha: float = 1 - CONFIDENCE,
) -> float:
    """Probability that `compare` detects a true difference of `effect` at level alpha with the given sample sizes.

    Args:
        components: of the table of differences.
        effect: true mean difference, in the unit of the values.
        n_seeds: planned training seeds, at least 2.
        n_prompts: planned prompts; those of the table if None.
        alpha: two-sided level of the test.

    Returns:
        A probability in [0, 1], from the noncentral t-distribution with the expected mean squares' degrees of freedom.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), section 2.5.
    """
    n_prompts = n_prompts or components.n_prompts
    ms_residual = components.residual
    ms_seed = components.seed * n_prompts + ms_residual
    ms_prompt = components.prompt * n_seeds + ms_residual
    stderr, df = _grand_mean_error(ms_seed, ms_prompt, ms_residual, n_seeds, n_prompts)
    if stderr == 0:
        return float(effect != 0)
    noncentrality = abs(effect) / stderr
    critical = stdtrit(df, 1 - alpha / 2)
    # the far tail of nctdtr is lost to rounding at large noncentrality, where the answer is 1
    return float(np.clip(1 - np.nan_to_num(nctdtr(df, noncentrality, critical)), 0.0, 1.0))


def seeds_needed(
    differences: ArrayLike,
    effect: float | None = None,
    target: float = 0.8,
    alpha: float = 1 - CONFIDENCE,
    max_seeds: int = 200,
) -> dict[str, float | int | str | None]:
    """Number of training seeds needed to decide this comparison.

    Args:
        differences: (seeds, prompts) of a - b, at least two seeds.
        effect: the true difference to plan for; the observed mean if None. The observed mean is itself uncertain, so it
            is better to plan for the smallest difference that would matter (Hoenig & Heisey, "The abuse of
            power", The American Statistician 55, 2001).
        target: desired power.
        alpha: two-sided level of the test.
        max_seeds: upper limit of the search.

    Returns:
        {effect, target, seeds (None if out of reach), power_now, power_at_max, limit}; limit is "prompts" if even
        max_seeds seeds do not reach the target but more prompts would, else "seeds".

    Raises:
        ValueError: fewer than two seeds or two complete prompts.
    """
    components = variance_components(differences)
    effect = float(_complete(_matrix(differences)).mean()) if effect is None else float(effect)
    seeds = next((s for s in range(2, max_seeds + 1) if power(components, effect, s, alpha=alpha) >= target), None)
    more_prompts = power(components, effect, max_seeds, 100 * components.n_prompts, alpha)
    return {
        "effect": effect,
        "target": target,
        "seeds": seeds,
        "power_now": power(components, effect, components.n_seeds, alpha=alpha),
        "power_at_max": power(components, effect, max_seeds, alpha=alpha),
        "limit": "prompts" if seeds is None and more_prompts >= target else "seeds",
    }


def smallest_detectable(stderr: float, df: float, target: float = 0.8, alpha: float = 1 - CONFIDENCE) -> float:
    """The true effect that a two-sided t-test finds with the desired power.

    Args:
        stderr: standard error of the estimate.
        df: its degrees of freedom.
        target: desired power, in (alpha, 1).
        alpha: two-sided level.

    Returns:
        The effect in the unit of `stderr`, which counts as known.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), section 2.5 (noncentral t).
    """
    critical = float(stdtrit(df, 1 - alpha / 2))
    return stderr * float(nctdtrinc(df, 1 - target, critical))


def hochberg(p_values: ArrayLike) -> Floats:
    """Adjust p-values for multiple testing (family-wise error) by Hochberg's step-up method.

    Needs tests that are independent or positively dependent, as comparisons of one method with several are. All
    hypotheses are rejected if the largest p-value is below the level, so it agrees with the intersection-union test.

    Args:
        p_values: (tests,), each in [0, 1].

    Returns:
        Adjusted p-values in the input's order; compare each with alpha.

    Source: Hochberg, "A sharper Bonferroni procedure for multiple tests of significance", Biometrika 75 (1988).
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)[::-1]
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum.accumulate(np.arange(1, len(p_values) + 1) * p_values[order])
    return np.minimum(adjusted, 1.0)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values for multiple testing (family-wise error) by Holm's step-down method.

    Args:
        p_values: (tests,), each in [0, 1].

    Returns:
        Adjusted p-values in the input's order; compare each with alpha.

    Raises:
        ValueError: a value outside [0, 1] or missing.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    p_values = np.asarray(p_values, float)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(
            f"p-values must lie in [0, 1], found {p_values.tolist()}; leave out tests that could not be run"
        )
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def kendall_tau(x: ArrayLike, y: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Kendall's rank correlation (tau-b) of two scorings of the same models, which are treated as a sample of all
    models.

    Args:
        x: (models,) scores under one judge.
        y: (models,) scores under the other, same order.
        confidence: nominal coverage.

    Returns:
        tau in [-1, 1] with Fieller's interval on the scale of atanh(tau), variance 0.437 / (models - 4); below five
        models the interval is [-1, 1]. For the interval, a perfect tau is reduced by half a discordant pair; otherwise
        its lower end would be 1 for any number of models.

    Raises:
        ValueError: the lengths differ, fewer than two models, or one scoring ties all models.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945); Fieller, Hartley & Pearson,
    "Tests for rank correlation coefficients", Biometrika 44 (1957).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(
            f"kendall_tau needs two equally long lists of at least 2 models, found {x.shape} and {y.shape}"
        )
    tau = float(_tau_b(x, y))
    if np.isnan(tau):
        raise ValueError("kendall_tau is undefined if one scoring ties all models; compare other models")
    n = len(x)
    low, high, stderr = -1.0, 1.0, None
    if n >= 5:
        bound = 1 - 2 / (n * (n - 1))
        centre, stderr = np.arctanh(np.clip(tau, -bound, bound)), float(np.sqrt(0.437 / (n - 4)))
        half = ndtri((1 + confidence) / 2) * stderr
        low, high = float(np.tanh(centre - half)), float(np.tanh(centre + half))
        low, high = min(low, tau), max(high, tau)
        stderr *= 1 - min(tau * tau, bound * bound)
    return Estimate(tau, low, high, stderr, None, None, 0, 0, "Fieller interval over models", confidence)


def rank_stability(
    a: ArrayLike, b: ArrayLike, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Kendall's tau between two judges' rankings of exactly these models, with an interval over prompts.

    Args:
        a: (models, prompts) values under one judge.
        b: (models, prompts) values under the other, same models, prompts and order.
        n_bootstrap: resamples of prompts, the same for both judges.
        seed: of the resamples.
        confidence: nominal coverage.

    Returns:
        tau-b of the models' means. The replicates contain the prompts' noise twice, so the interval is biased low if
        models are close; read it as the range expected in a re-run on other prompts. NaN where one judge ties all
        models, in every resample for the interval.

    Raises:
        ValueError: the shapes differ, fewer than two models, or fewer than two prompts that are complete under both
            judges.
    """
    a, b = _matrix(a), _matrix(b)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"rank_stability needs two (models, prompts) tables of one shape, found {a.shape} and {b.shape}"
        )
    both = _complete(np.concatenate([a, b]))
    a, b = both[: len(a)], both[len(a) :]
    counts = resample_counts(a.shape[1], n_bootstrap, seed)
    replicates = _tau_b(counts @ a.T, counts @ b.T)
    replicates = replicates[~np.isnan(replicates)]
    low, high = percentile_interval(replicates, confidence) if len(replicates) else (np.nan, np.nan)
    return Estimate(
        value=float(_tau_b(a.mean(axis=1), b.mean(axis=1))),
        low=low,
        high=high,
        stderr=float(np.std(replicates, ddof=1)) if len(replicates) > 1 else None,
        p_value=None,
        df=None,
        n_seeds=0,
        n_prompts=a.shape[1],
        method="percentile bootstrap over prompts",
        confidence=confidence,
    )


def _matrix(values: ArrayLike) -> Floats:
    table = np.atleast_2d(np.asarray(values, float))
    if table.ndim != 2:
        raise ValueError(f"expected a (seeds, prompts) table, found shape {table.shape}")
    return table


def _complete(table: Floats) -> Floats:
    """The columns (prompts) without a missing value in any run."""
    kept = table[:, ~np.isnan(table).any(axis=0)]
    if kept.shape[1] < 2:
        raise ValueError(
            f"an interval over prompts needs at least 2 prompts with a value in every run, found {kept.shape[1]} of "
            f"{table.shape[1]}; judge more prompts, or look at the failed judgments"
        )
    return kept


def _difference(a: ArrayLike, b: ArrayLike) -> Floats:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(
            f"a paired comparison needs the same seeds and prompts on both sides, found shapes {a.shape} and {b.shape}"
            "; keep the seeds and prompts that both have"
        )
    return a - b


def _mean_squares(table: Floats) -> tuple[float, float, float]:
    """Mean squares of seeds, prompts and residual in a crossed table with one value per cell."""
    n_seeds, n_prompts = table.shape
    by_seed, by_prompt = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - by_seed - by_prompt + table.mean()
    ms_seed = n_prompts * by_seed.var(ddof=1)
    ms_prompt = n_seeds * by_prompt.var(ddof=1)
    return float(ms_seed), float(ms_prompt), float((residual**2).sum() / ((n_seeds - 1) * (n_prompts - 1)))


def _grand_mean_error(
    ms_seed: float, ms_prompt: float, ms_residual: float, n_seeds: int, n_prompts: int
) -> tuple[float, float]:
    """Standard error of the grand mean of a crossed table and Satterthwaite's degrees of freedom (at least 1)."""
    total = max(ms_seed - ms_residual, 0.0) + ms_prompt
    if total == 0:
        return 0.0, n_prompts - 1.0
    spread = (
        ms_seed**2 / (n_seeds - 1) + ms_prompt**2 / (n_prompts - 1) + ms_residual**2 / ((n_seeds - 1) * (n_prompts - 1))
    )
    return float(np.sqrt(total / (n_seeds * n_prompts))), max(1.0, total**2 / spread)


def _t_estimate(
    value: float, stderr: float | None, df: float, n_seeds: int, n_prompts: int, method: str, confidence: float
) -> Estimate:
    """Student's interval and two-sided p-value around a value; no interval without a standard error."""
    if stderr is None:
        return Estimate(value, -np.inf, np.inf, None, None, None, n_seeds, n_prompts, method, confidence)
    half = float(stdtrit(df, (1 + confidence) / 2)) * stderr
    if stderr > 0:
        p_value = float(2 * stdtr(df, -abs(value) / stderr))
    else:
        p_value = float(value == 0)
    return Estimate(value, value - half, value + half, stderr, p_value, df, n_seeds, n_prompts, method, confidence)


def _tau_b(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b along the last axis; NaN if one side ties everything."""
    first, second = np.triu_indices(x.shape[-1], k=1)
    sign_x = np.sign(x[..., first] - x[..., second])
    sign_y = np.sign(y[..., first] - y[..., second])
    untied = np.sqrt((sign_x != 0).sum(axis=-1) * (sign_y != 0).sum(axis=-1))
    concordance = (sign_x * sign_y).sum(axis=-1)
    return np.divide(concordance, untied, out=np.full(np.shape(untied), np.nan), where=untied > 0)


def simulate_coverage(
    n_seeds: int,
    seed_sd: float,
    n_prompts: int = 200,
    prompt_sd: float = 0.2,
    residual_sd: float = 0.3,
    n_tables: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Share of simulated tables whose nominal 95 % interval covers the true mean, for each kind of interval.

    Args:
        n_seeds: training seeds per table.
        seed_sd: standard deviation between seeds.
        n_prompts: prompts per table.
        prompt_sd: standard deviation between prompts.
        residual_sd: standard deviation of the rest.
        n_tables: simulated tables; the Monte-Carlo error of a coverage of 0.95 is about 0.007 at 1000.
        seed: of the simulation.

    Returns:
        {"seeds and prompts", "seeds", "two-level bootstrap", "prompts"}: coverage, 0 to 1.
    """
    rng = np.random.default_rng(seed)
    hits = {"seeds and prompts": 0, "seeds": 0, "two-level bootstrap": 0, "prompts": 0}
    for _ in range(n_tables):
        table = (
            seed_sd * rng.standard_normal((n_seeds, 1))
            + prompt_sd * rng.standard_normal((1, n_prompts))
            + residual_sd * rng.standard_normal((n_seeds, n_prompts))
        )
        intervals = {
            "seeds and prompts": mean_over_seeds_and_prompts(table),
            "seeds": mean_over_seeds(table.mean(axis=1)),
            "two-level bootstrap": two_level_bootstrap(table, n_bootstrap=300),
            "prompts": mean_over_seeds_and_prompts(table.mean(axis=0)),
        }
        for name, interval in intervals.items():
            hits[name] += interval.low <= 0 <= interval.high
    return {name: count / n_tables for name, count in hits.items()}


def main() -> None:
    """Print the coverage table of the module's docstring."""
    for n_seeds in (2, 3, 5, 10):
        for seed_sd in (0.0, 0.02, 0.05, 0.2):
            coverage = simulate_coverage(n_seeds, seed_sd)
            print(f"| {n_seeds} | {seed_sd} | " + " | ".join(f"{share:.2f}" for share in coverage.values()) + " |")


if __name__ == "__main__":
    main()
