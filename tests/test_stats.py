"""The statistics have the stated coverage, false positive rate and power, and agree with scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eval import stats


def crossed(rng, n_seeds, n_prompts, seed_sd=0.0, prompt_sd=0.2, residual_sd=0.3, mean=0.0):
    return (
        mean
        + seed_sd * rng.standard_normal((n_seeds, 1))
        + prompt_sd * rng.standard_normal((1, n_prompts))
        + residual_sd * rng.standard_normal((n_seeds, n_prompts))
    )


def test_resamples_are_the_same_for_the_same_seed_and_draw_every_prompt_once_on_average():
    counts = stats.resample_counts(40, 5000, seed=3)
    assert (counts == stats.resample_counts(40, 5000, seed=3)).all()
    assert (counts.sum(axis=1) == 40).all()
    assert np.allclose(counts.mean(axis=0), 1, atol=0.07)  # 5 standard errors of a Poisson(1) mean of 5000


def test_a_prompt_bootstrap_has_nominal_coverage_of_the_true_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        interval = stats.bootstrap_mean(rng.beta(0.5, 0.5, size=150), n_bootstrap=400)
        hits += interval.low <= 0.5 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_pairing_removes_the_shared_variance():
    rng = np.random.default_rng(1)
    prompt = rng.standard_normal(300)
    a, b = prompt + 0.05, prompt + 0.01 * rng.standard_normal(300)
    estimate = stats.paired_bootstrap(a, b)
    assert estimate.low > 0
    assert estimate.p_value < 0.01
    assert estimate.stderr < 0.1 * stats.bootstrap_mean(a).stderr


@pytest.mark.parametrize(("n_seeds", "seed_sd"), [(3, 0.0), (3, 0.05), (3, 0.2), (5, 0.05)])
def test_the_interval_over_seeds_and_prompts_keeps_its_coverage_with_few_seeds(n_seeds, seed_sd):
    coverage = stats.simulate_coverage(n_seeds, seed_sd, n_tables=400, seed=5)
    assert coverage["seeds and prompts"] >= 0.90


def test_a_percentile_bootstrap_of_three_seeds_is_too_narrow_and_prompts_alone_far_too_narrow():
    coverage = stats.simulate_coverage(3, 0.2, n_tables=400, seed=6)
    assert coverage["two-level bootstrap"] < 0.85
    assert coverage["prompts"] < 0.5


def test_equal_methods_differ_significantly_in_about_five_percent_of_cases():
    rng = np.random.default_rng(2)
    for seed_sd in (0.0, 0.1):
        rejected = sum(
            stats.compare(crossed(rng, 3, 100, seed_sd), crossed(rng, 3, 100, seed_sd)).p_value < 0.05
            for _ in range(600)
        )
        assert rejected / 600 <= 0.09


def test_the_test_and_the_interval_agree():
    rng = np.random.default_rng(3)
    for _ in range(100):
        estimate = stats.compare(crossed(rng, 3, 50, 0.1, mean=0.1), crossed(rng, 3, 50, 0.1))
        assert (estimate.p_value < 0.05) == (not estimate.low <= 0 <= estimate.high)


def test_one_seed_gives_the_paired_t_test_and_says_so():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(4)
    a, b = rng.random(80), rng.random(80)
    estimate = stats.compare(a, b)
    assert estimate.p_value == pytest.approx(ttest_rel(a, b).pvalue)
    assert "one seed" in estimate.method
    assert estimate.n_seeds == 1


def test_seeds_that_differ_wildly_leave_two_degrees_of_freedom_of_three():
    table = np.array([[0.0], [1.0], [5.0]]) + 1e-6 * np.random.default_rng(0).standard_normal((3, 400))
    estimate = stats.mean_over_seeds_and_prompts(table)
    by_seed = stats.mean_over_seeds(table.mean(axis=1))
    assert estimate.df == pytest.approx(2, abs=1e-3)
    assert (estimate.low, estimate.high) == pytest.approx((by_seed.low, by_seed.high), rel=1e-3)


def test_a_single_run_says_nothing_about_other_seeds():
    estimate = stats.mean_over_seeds([0.4])
    assert (estimate.low, estimate.high, estimate.p_value) == (-np.inf, np.inf, None)


def test_prompts_with_a_failed_judgment_are_left_out_of_both_sides():
    a, b = np.full((2, 5), 0.5), np.zeros((2, 5))
    a[0, 1], b[1, 3] = np.nan, np.nan
    estimate = stats.compare(a, b)
    assert (estimate.n_prompts, estimate.value) == (3, 0.5)


def test_equal_values_everywhere_give_a_point_and_no_evidence():
    estimate = stats.compare(np.full((3, 20), 0.5), np.full((3, 20), 0.5))
    assert (estimate.value, estimate.low, estimate.high, estimate.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.compare(np.zeros((3, 5)), np.zeros((2, 5))), "same seeds and prompts"),
        (lambda: stats.compare([0.1], [0.2]), "at least 2 prompts"),
        (lambda: stats.bootstrap_mean([np.nan, 1.0]), "at least 2 prompts"),
        (lambda: stats.variance_components(np.zeros((1, 5))), "train one more seed"),
        (lambda: stats.mean_over_seeds([]), "at least one run"),
        (lambda: stats.holm([0.1, np.nan]), r"\[0, 1\]"),
        (lambda: stats.kendall_tau([1, 2], [1, 2, 3]), "equally long"),
        (lambda: stats.kendall_tau([1, 1], [1, 2]), "ties all models"),
    ],
)
def test_bad_input_is_reported(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_variance_components_are_unbiased():
    rng = np.random.default_rng(7)
    found = [stats.variance_components(crossed(rng, 4, 100, 0.1, 0.2, 0.3)) for _ in range(400)]
    assert np.mean([c.prompt for c in found]) == pytest.approx(0.04, rel=0.05)
    assert np.mean([c.residual for c in found]) == pytest.approx(0.09, rel=0.02)
    assert np.mean([c.seed for c in found]) == pytest.approx(0.01, rel=0.15)


def test_predicted_power_is_the_power_that_a_simulation_finds():
    rng = np.random.default_rng(8)
    truth = stats.Components(seed=0.03**2, prompt=0.2**2, residual=0.3**2, n_seeds=4, n_prompts=150)
    for effect in (0.03, 0.06, 0.1):
        found = np.mean(
            [
                stats.mean_over_seeds_and_prompts(crossed(rng, 4, 150, 0.03, mean=effect)).p_value < 0.05
                for _ in range(500)
            ]
        )
        assert stats.power(truth, effect, 4) == pytest.approx(found, abs=0.09)


def test_seeds_needed_is_the_least_number_that_reaches_the_power():
    differences = crossed(np.random.default_rng(9), 3, 500, 0.1, 0.05, 0.1, mean=0.05)
    plan = stats.seeds_needed(differences, effect=0.1)
    components = stats.variance_components(differences)
    assert stats.power(components, 0.1, plan["seeds"]) >= 0.8 > stats.power(components, 0.1, plan["seeds"] - 1)
    assert plan["limit"] == "seeds"


def test_no_number_of_seeds_replaces_prompts():
    differences = crossed(np.random.default_rng(10), 3, 30, 0.0, 0.5, 0.01, mean=0.1)
    plan = stats.seeds_needed(differences, effect=0.05)
    assert plan["seeds"] is None
    assert plan["limit"] == "prompts"


def test_power_is_one_without_noise_and_for_huge_effects():
    silent = stats.Components(0.0, 0.0, 0.0, 3, 10)
    assert stats.power(silent, 0.1, 3) == 1
    assert stats.power(stats.Components(0.01, 0.01, 0.01, 3, 10), 1e6, 3) == pytest.approx(1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60)
def test_holm_and_hochberg_agree_with_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert stats.hochberg(p_values) == pytest.approx(multipletests(p_values, method="simes-hochberg")[1])


@given(hnp.arrays(float, (2, 7), elements=st.integers(0, 5)))
@settings(max_examples=100)
def test_kendalls_tau_agrees_with_scipy(scores):
    from scipy.stats import kendalltau

    x, y = scores
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert stats.kendall_tau(x, y).value == pytest.approx(kendalltau(x, y).statistic)


def test_the_interval_of_kendalls_tau_covers_the_true_tau():
    rng = np.random.default_rng(11)
    rho = 0.6
    hits = 0
    for _ in range(500):
        x = rng.standard_normal(12)
        interval = stats.kendall_tau(x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(12))
        hits += interval.low <= 2 / np.pi * np.arcsin(rho) <= interval.high
    assert 0.91 <= hits / 500 <= 0.99


def test_a_perfect_agreement_of_few_models_is_weaker_evidence_than_of_many():
    few, many = stats.kendall_tau(range(6), range(6)), stats.kendall_tau(range(30), range(30))
    assert few.value == few.high == many.value == 1
    assert few.low < many.low < 1
    assert (stats.kendall_tau(range(4), range(4)).low) == -1


def test_rank_stability_is_high_for_clear_rankings_and_uncertain_for_close_ones():
    rng = np.random.default_rng(12)
    skill = np.arange(8)[:, None]
    clear = stats.rank_stability(skill + rng.random((8, 100)), skill + rng.random((8, 100)))
    close = stats.rank_stability(0.01 * skill + rng.random((8, 100)), 0.01 * skill + rng.random((8, 100)))
    assert (clear.value, clear.low, clear.high) == (1, 1, 1)
    assert close.high - close.low > 0.3


def test_a_judge_that_ties_all_models_has_no_rank_stability():
    found = stats.rank_stability(np.zeros((4, 30)), np.random.default_rng(12).random((4, 30)))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.stderr is None


def test_the_two_level_bootstrap_agrees_with_the_t_interval_when_seeds_are_many():
    table = crossed(np.random.default_rng(13), 40, 200, 0.1)
    by_t, by_bootstrap = stats.mean_over_seeds_and_prompts(table), stats.two_level_bootstrap(table)
    assert by_bootstrap.high - by_bootstrap.low == pytest.approx(by_t.high - by_t.low, rel=0.15)
