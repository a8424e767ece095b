"""The meta-learner: its start, its period, the symmetry of the authors' start.

Its gradient and its update are checked by the conformance kit (tests/test_conformance.py).
"""

import math

import pytest
import torch

from metaapo.meta_learner import MetaLearner


def test_the_authors_initial_map_in_closed_form():
    """All weights 0.1, 100 units: h(l) = sigmoid(10 tanh(0.1 l)), so that h(0) = 1/2 and w <= 1/2."""
    scores = torch.linspace(-5, 0, 11)
    expected = [1 / (1 + math.exp(-10 * math.tanh(0.1 * s))) for s in scores.tolist()]
    assert MetaLearner(init="symmetric").weigh(scores).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_spread_start_increases_with_the_score_and_is_one_half_at_zero():
    learner = MetaLearner(init="spread", seed=3)
    weights = learner.weigh(torch.linspace(-5, 0, 50))
    assert (weights.diff() > 0).all()
    assert weights[-1].item() == pytest.approx(0.5)


def test_symmetric_units_stay_identical_and_spread_units_do_not():
    scores, offline, online = torch.rand(32) * -3, torch.rand(32), torch.rand(32)
    for init, identical in (("symmetric", True), ("spread", False)):
        learner = MetaLearner(init=init)
        for _ in range(20):
            learner.update(scores, offline, online)
        assert (learner.hidden.weight.std().item() < 1e-7) is identical


def test_weights_fall_where_online_pairs_have_the_lower_loss():
    learner = MetaLearner()
    scores = torch.full((16,), -1.0)
    before = learner.weigh(scores)[0]
    for _ in range(10):
        learner.update(scores, torch.ones(16), torch.zeros(16))
    assert learner.weigh(scores)[0] < before


def test_an_update_comes_every_period_steps_and_only_then():
    learner = MetaLearner(period=3)
    batch = (torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([0.5]))
    due = [learner.observe(*batch) is not None for _ in range(7)]
    assert due == [False, False, True, False, False, True, False]
    assert learner.updates == 2


def test_steps_without_online_pairs_give_no_update_and_no_error():
    learner = MetaLearner(period=1)
    nothing = torch.zeros(0)
    assert learner.observe(nothing, nothing, nothing) is None
    assert learner.updates == 0


def test_weights_are_detached_and_saved_exactly(tmp_path):
    learner = MetaLearner(seed=1)
    learner.update(torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([0.2]))
    assert not learner.weigh(torch.tensor([-1.0])).requires_grad
    learner.save(tmp_path)
    other = MetaLearner(seed=9)
    other.load(tmp_path)
    scores = torch.linspace(-5, 0, 9)
    assert torch.equal(other.weigh(scores), learner.weigh(scores))
