"""Selection: fractions, budgets and order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metaapo.selection import by_probability, none, random_fraction


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 5))
def test_a_random_fraction_is_exact(n, fraction, seed):
    selection = random_fraction(n, fraction, np.random.default_rng(seed))
    assert selection.sampled.sum() == round(fraction * n)


def test_none_selects_nothing():
    assert not none(10).sampled.any()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=100), st.floats(0.05, 1))
def test_a_budget_caps_the_mean_and_keeps_the_order(probability, budget):
    p = np.array(probability)
    scaled = by_probability(p, budget, np.random.default_rng(0)).probability
    assert scaled.mean() <= max(budget, 0) + 1e-9 or np.allclose(scaled, p)
    assert scaled.mean() <= budget + 1e-9
    assert (np.argsort(scaled, kind="stable") == np.argsort(p, kind="stable")).all() or len(set(scaled)) < len(p)


def test_a_budget_of_one_changes_no_probability():
    p = np.linspace(0, 1, 50)
    assert (by_probability(p, 1.0, np.random.default_rng(0)).probability == p).all()


def test_each_prompt_is_drawn_with_its_probability():
    p = np.repeat([0.1, 0.5, 0.9], 20_000)
    rates = by_probability(p, 1.0, np.random.default_rng(1)).sampled.reshape(3, -1).mean(1)
    np.testing.assert_allclose(rates, [0.1, 0.5, 0.9], atol=0.015)
