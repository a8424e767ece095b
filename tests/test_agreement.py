"""Agreement of judges: textbook examples, other implementations, and properties that hold for any ratings."""

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from eval.agreement import (
    bland_altman,
    bootstrap_items,
    bounds_over_unreadable,
    cohen_kappa,
    corrected_win_rate,
    krippendorff_alpha,
    order_effects,
    percent_agreement,
    retest,
)
from eval.equating import equate, on_old_scale

NAN = float("nan")
ratings = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=40)
tables = st.integers(2, 5).flatmap(
    lambda raters: st.lists(
        st.lists(st.sampled_from([NAN, 1.0, 2.0, 3.0, 5.0]), min_size=raters, max_size=raters), min_size=3, max_size=20
    ).map(lambda items: np.array(items).T)
)


# --- two raters ----------------------------------------------------------------------------------------------------


@given(ratings, st.sampled_from(["nominal", "linear", "quadratic"]))
@settings(max_examples=100)
def test_kappa_equals_scikit_learns(pairs, weights):
    a, b = np.array(pairs).T
    labels = np.unique(np.concatenate([a, b]))
    assume(len(labels) > 1)
    expected = cohen_kappa_score(a, b, weights=None if weights == "nominal" else weights)
    assert cohen_kappa(a, b, weights) == pytest.approx(expected, nan_ok=True)


@given(ratings)
@settings(max_examples=50)
def test_kappa_ignores_names_of_categories_and_order_of_raters(pairs):
    a, b = np.array(pairs, float).T
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa(b, a), nan_ok=True)
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa(10 - a, 10 - b), nan_ok=True)


def test_two_raters_who_always_say_the_same_have_no_kappa():
    assert np.isnan(cohen_kappa([1, 1, 1], [1, 1, 1]))
    assert percent_agreement([1, 1, 1], [1, 1, 1]) == 1


def test_missing_ratings_do_not_count():
    assert percent_agreement([1, 2, NAN, 4], [1, 3, 3, NAN]) == 0.5
    assert cohen_kappa([1, 2, 1, NAN], [1, 2, 2, 2]) == pytest.approx(cohen_kappa([1, 2, 1], [1, 2, 2]))


def test_raters_of_different_items_are_an_error():
    with pytest.raises(ValueError, match="same order"):
        percent_agreement([1, 2], [1, 2, 3])


def test_one_judge_is_stricter_than_the_other_by_bias():
    found = bland_altman([5, 6, 7, 8], [4, 5, 6, 7])
    assert (found["bias"], found["low"], found["high"]) == (1, 1, 1)
    assert bland_altman([5], [4]) is None


# --- any number of raters ------------------------------------------------------------------------------------------

# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section C: four observers, twelve units
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_equals_krippendorffs_published_value(level, published):
    assert krippendorff_alpha(OBSERVERS, level) == pytest.approx(published, abs=0.0005)


@given(tables, st.sampled_from(["nominal", "ordinal", "interval"]))
@settings(max_examples=100)
def test_alpha_equals_the_krippendorff_packages(table, level):
    pairable = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    assume(len(np.unique(pairable[~np.isnan(pairable)])) > 1)
    expected = krippendorff.alpha(table, level_of_measurement=level)
    assert krippendorff_alpha(table, level) == pytest.approx(expected)


def test_without_pairs_or_without_variety_there_is_no_alpha():
    assert np.isnan(krippendorff_alpha([[1, NAN], [NAN, 2]]))
    assert np.isnan(krippendorff_alpha([[3, 3], [3, 3]]))


def test_chance_has_an_alpha_near_zero_and_its_interval_says_so():
    table = np.random.default_rng(0).integers(0, 3, (2, 400))
    estimate = bootstrap_items(krippendorff_alpha, table, n_bootstrap=300)
    assert estimate.low < 0 < estimate.high
    assert estimate.high - estimate.low < 0.25


def test_the_bootstrap_of_a_mean_has_the_mean_s_standard_error():
    values = np.random.default_rng(1).normal(size=(1, 200))
    estimate = bootstrap_items(lambda table: float(table.mean()), values)
    assert estimate.stderr == pytest.approx(values.std(ddof=1) / 200**0.5, rel=0.1)


def test_items_of_one_question_are_resampled_together():
    values = np.repeat(np.random.default_rng(2).normal(size=50), 8)[
        None
    ]  # eight copies carry no more information than one
    alone = bootstrap_items(lambda table: float(table.mean()), values)
    together = bootstrap_items(lambda table: float(table.mean()), values, clusters=np.repeat(np.arange(50), 8))
    assert together.stderr == pytest.approx(8**0.5 * alone.stderr, rel=0.15)


def test_one_cluster_has_no_interval():
    estimate = bootstrap_items(krippendorff_alpha, [[1, 2, 1], [1, 2, 2]], clusters=[0, 0, 0])
    assert np.isnan(estimate.low)
    assert estimate.stderr is None
    assert estimate.value == pytest.approx(krippendorff_alpha([[1, 2, 1], [1, 2, 2]]))


# --- a judge with itself -------------------------------------------------------------------------------------------

# Shrout & Fleiss (1979), table 2: six targets by four judges; ICC(1,1) = .17
TARGETS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float).T


def test_reliability_equals_shrout_and_fleiss_published_value():
    assert retest(TARGETS).reliability == pytest.approx(0.17, abs=0.005)


def test_noise_and_spread_are_recovered():
    rng = np.random.default_rng(3)
    table = 5 + 1.5 * rng.standard_normal(3000) + 0.7 * rng.standard_normal((3, 3000))
    table[0, :500] = NAN
    found = retest(table)
    assert found.noise == pytest.approx(0.7, rel=0.05)
    assert found.spread == pytest.approx(1.5, rel=0.05)
    assert found.reliability == pytest.approx(1.5**2 / (1.5**2 + 0.7**2), abs=0.02)
    assert found.stderr_of_mean == pytest.approx(0.7 / 3000**0.5, rel=0.05)


def test_a_judge_that_repeats_itself_has_no_noise():
    found = retest([[0.2, 0.8, 0.5], [0.2, 0.8, 0.5]], middle=0.5)
    assert (found.exact, found.flips, found.noise, found.reliability) == (1, 0, 0, 1)


def test_flips_count_changed_winners_only():
    found = retest([[0.2, 0.8, 0.5, 0.4], [0.6, 0.9, 0.7, 0.3]], middle=0.5)
    assert found.flips == 0.25  # a change from tie to win is not a flip


def test_items_judged_once_give_no_repeatability():
    assert retest([[1, 2, NAN], [NAN, NAN, 3]]) is None


def test_orders_fall_into_three_kinds():
    #               same, reversed, tie-win, win-tie, tie-tie, unreadable
    straight = [1.0, 1.0, 0.5, 1.0, 0.5, NAN]
    swapped = [1.0, 0.0, 1.0, 0.5, 0.5, 1.0]
    found = order_effects(straight, swapped)
    assert found == {
        "n": 5,
        "consistent": 0.4,
        "reversed": 0.2,
        "tie_against_win": 0.4,
        "first_slot_advantage": pytest.approx(0.1),
    }
    assert order_effects([NAN], [1])["consistent"] is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
@settings(max_examples=50)
def test_the_three_kinds_are_all_there_are(pairs):
    straight, swapped = np.array(pairs).T
    found = order_effects(straight, swapped, tie_width=0.1)
    assert found["consistent"] + found["reversed"] + found["tie_against_win"] == pytest.approx(1)
    mirrored = order_effects(swapped, straight, tie_width=0.1)
    assert mirrored["first_slot_advantage"] == pytest.approx(-found["first_slot_advantage"])


# --- a judge against people ----------------------------------------------------------------------------------------


def test_a_win_rate_is_corrected_for_the_judge_s_errors():
    human = np.array([1] * 100 + [0] * 100)
    judge = np.array([1] * 90 + [0] * 10 + [1] * 30 + [0] * 70)  # right in 90 % of wins and 70 % of losses
    estimate = corrected_win_rate([1] * 60 + [0] * 40, judge, human)
    assert estimate.value == pytest.approx((0.6 + 0.7 - 1) / (0.9 + 0.7 - 1))
    assert estimate.low < 0.5 < estimate.high


def test_the_corrected_interval_covers_the_truth():
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(200):
        true, human = rng.random(300) < 0.55, rng.random(400) < 0.5
        judged, decided = (np.where(rng.random(len(x)) < 0.8, x, ~x).astype(float) for x in (true, human))
        estimate = corrected_win_rate(judged, decided, human.astype(float), n_bootstrap=400, seed=seed)
        hits += estimate.low <= 0.55 <= estimate.high
    assert 0.9 <= hits / 200 <= 0.99


def test_a_judge_at_chance_gives_no_correction():
    assert corrected_win_rate([1, 0], [1, 0, 1, 0], [1, 1, 0, 0]) is None
    assert corrected_win_rate([1, 0], [1, 1], [1, 1]) is None


def test_unreadable_judgments_bound_the_mean():
    assert bounds_over_unreadable([0.5, 1.0, NAN, NAN], 0, 1) == (0.375, 0.875)
    assert bounds_over_unreadable([4.0, 6.0], 1, 10) == (5, 5)
    assert np.isnan(bounds_over_unreadable([], 0, 1)).all()


# --- equating ------------------------------------------------------------------------------------------------------


def judged(n_models=12, n_questions=150, disagreement=0.0, seed=5):
    """Values of two judges: old = 20 + 2 new for a model's quality, plus disagreement about single models."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(10, 30, n_models)
    new = quality[:, None] + rng.normal(0, 8, (n_models, n_questions))
    own = disagreement * rng.standard_normal(n_models)
    old = 20 + 2 * quality[:, None] + own[:, None] + rng.normal(0, 8, (n_models, n_questions))
    return old, new


def test_the_line_between_two_judges_is_found():
    equating = equate(*judged(), n_bootstrap=300)
    assert equating.slope_low < 2 < equating.slope_high
    assert equating.slope == pytest.approx(2, rel=0.1)
    value, low, high = on_old_scale(equating, 20)
    assert low < 60 < high
    assert value == pytest.approx(60, abs=1.5)


def test_equating_a_judge_with_itself_changes_nothing():
    old, _ = judged()
    equating = equate(old, old, n_bootstrap=100)
    assert (equating.slope, equating.intercept) == pytest.approx((1, 0))
    assert equating.error == pytest.approx(0, abs=1e-9)


def test_judges_who_rank_differently_equate_with_a_wider_interval():
    alike, apart = (equate(*judged(disagreement=d), n_bootstrap=200) for d in (0.0, 10.0))
    width = [np.diff(on_old_scale(e, 20)[1:]).item() for e in (alike, apart)]
    assert width[1] > 3 * width[0]
    assert apart.correlation < alike.correlation


def test_the_equated_interval_covers_a_held_out_model():
    hits = 0
    for seed in range(50):
        old, new = judged(n_models=9, n_questions=40, disagreement=3.0, seed=seed)
        equating = equate(old[1:], new[1:], n_bootstrap=60)
        _, low, high = on_old_scale(equating, new[0].mean())
        hits += low <= old[0].mean() <= high
    assert hits >= 44


@pytest.mark.parametrize(("n_models", "n_questions"), [(2, 50), (5, 1)])
def test_too_few_common_items_give_no_equating(n_models, n_questions):
    assert equate(*judged(n_models, n_questions)) is None


def test_a_judge_that_cannot_tell_models_apart_gives_no_equating():
    old, new = judged()
    assert equate(old, np.ones_like(new)) is None


def test_equating_tables_of_different_shapes_is_an_error():
    with pytest.raises(ValueError, match="one shape"):
        equate(np.ones((3, 4)), np.ones((3, 5)))
