"""The equations of an optimizer step, each against a computation by hand."""

import math

import pytest
import torch

from baselines import dpo, online_dpo
from metaapo.config import MethodConfig
from metaapo.loop.step import StepColumns, estimate_kl, join, mixed_loss, offline_pairs, prompt_losses
from metaapo.losses import Objective, PairLogps, ipo
from metaapo.method import Method

DPO = dpo.build(MethodConfig(), None)
ONLINE = online_dpo.build(online_dpo.Params(), None)


def tensor(*values):
    return torch.tensor([float(value) for value in values])


def logps(margins, **columns):
    """Pairs with these margins under a reference that gives every response log-probability -5."""
    n = len(margins)
    chosen = torch.tensor([margin - 5.0 for margin in margins], requires_grad=True)
    constants = [torch.full((n,), value) for value in (-5.0, -5.0, -5.0, 3.0, 1.0)]
    return PairLogps(chosen, *constants, **columns)


def dpo_loss(beta, margin):
    return math.log1p(math.exp(-beta * margin))


def method_with(**decisions):
    return Method(**({"select": None, "weigh": lambda pairs: 0.5} | decisions))


def test_the_mixed_loss_is_w_off_plus_one_minus_w_on():
    mixed = mixed_loss(tensor(0.25, 1.0, 0.0), tensor(4.0, 5.0, 6.0), tensor(8.0, 9.0, 10.0))
    assert mixed.tolist() == [0.25 * 4 + 0.75 * 8, 5.0, 10.0]


def test_a_prompt_without_an_online_pair_has_its_weighted_offline_loss_alone():
    has_online = torch.tensor([False, True, False])
    losses, columns = prompt_losses(
        method_with(weigh=lambda pairs: 0.3), 0.2, logps([1.0, 2.0, 3.0]), logps([-4.0]), has_online, torch.zeros(3)
    )
    expected = [0.3 * dpo_loss(0.2, 1), 0.3 * dpo_loss(0.2, 2) + 0.7 * dpo_loss(0.2, -4), 0.3 * dpo_loss(0.2, 3)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert columns.online.tolist() == pytest.approx([0, dpo_loss(0.2, -4), 0], rel=1e-5)
    assert columns.has_online.tolist() == [False, True, False]


def test_the_weight_sees_the_score_and_takes_no_gradient():
    """w = -score: the loss is w * L with dw = 0, so the gradient is w * dL, without the product rule's second term."""
    offline = logps([1.5])
    losses, columns = prompt_losses(
        method_with(weigh=lambda pairs: -pairs.scores), 0.2, offline, None, torch.tensor([False]), torch.zeros(1)
    )
    loss = dpo_loss(0.2, 1.5)
    assert columns.scores.item() == pytest.approx(-loss, rel=1e-5)
    assert losses.item() == pytest.approx(loss * loss, rel=1e-5)
    losses.sum().backward()
    slope = -0.2 / (1 + math.exp(0.2 * 1.5))
    assert offline.chosen.grad.item() == pytest.approx(loss * slope, rel=1e-4)


def test_the_bonus_is_added_to_online_losses_only():
    method = method_with(bonus=lambda pairs, beta: 10 * beta * (pairs.greedy - pairs.reference_greedy))
    online = logps([2.0], greedy=tensor(-1.0), reference_greedy=tensor(-1.5))
    losses, _ = prompt_losses(method, 0.2, logps([1.0, 1.0]), online, torch.tensor([True, False]), torch.zeros(2))
    off, on = dpo_loss(0.2, 1.0), dpo_loss(0.2, 2.0) + 10 * 0.2 * 0.5
    assert losses.tolist() == pytest.approx([0.5 * off + 0.5 * on, 0.5 * off], rel=1e-5)


@pytest.mark.parametrize(
    ("method", "weight"), [(DPO, 1.0), (ONLINE, 0.0)], ids=["offline pairs alone", "online pairs alone"]
)
def test_the_weights_of_the_pure_methods(method, weight):
    offline = logps([1.0]) if method.uses_offline else None
    losses, columns = prompt_losses(method, 0.2, offline, logps([3.0]), torch.tensor([True]), torch.zeros(1))
    assert columns.weights.tolist() == [weight]
    assert losses.item() == pytest.approx(dpo_loss(0.2, 1.0 if weight else 3.0), rel=1e-5)


def test_another_objective_gives_both_losses_and_the_score():
    method = method_with(objective=Objective(ipo))
    losses, columns = prompt_losses(method, 0.5, logps([3.0]), logps([6.0]), torch.tensor([True]), torch.zeros(1))
    # chosen has 3 tokens, rejected 1, whose log-ratio is 0: (margin / 3 - 1 / (2 beta))^2
    off, on = (3 / 3 - 1) ** 2, (6 / 3 - 1) ** 2
    assert columns.scores.item() == pytest.approx(-off, abs=1e-6)
    assert losses.item() == pytest.approx(0.5 * off + 0.5 * on, rel=1e-5)


def test_a_method_may_look_at_scores_lengths_and_rewards():
    pairs = logps([1.0, 2.0])
    seen = offline_pairs(
        method_with(score=lambda logps, beta: beta * logps.margin), pairs, tensor(7, 7), tensor(0.5, -1), 0.2
    )
    assert seen.scores.tolist() == pytest.approx([0.2, 0.4])
    assert seen.length_gaps.tolist() == [0.5, 0.5]  # 3 tokens and 1: (3 - 1) / 4
    assert seen.reward_gaps.tolist() == [0.5, -1.0]
    assert not seen.scores.requires_grad


def test_kept_values_are_detached_and_joined_in_order():
    def columns(margins):
        nowhere = torch.zeros(len(margins), dtype=torch.bool)
        return prompt_losses(method_with(), 0.2, logps(margins), None, nowhere, torch.zeros(len(margins)))[1]

    parts = [columns([1.0, 2.0]), columns([3.0])]
    whole = join([*parts, parts[0].each(lambda column: column[:0])])  # an empty part changes nothing
    assert whole.offline.tolist() == pytest.approx([dpo_loss(0.2, margin) for margin in (1, 2, 3)], rel=1e-5)
    assert whole.has_online.dtype == torch.bool
    assert whole.features is None
    assert not any(column.requires_grad for column in (whole.offline, whole.online, whole.scores, whole.weights))


def test_the_features_of_a_learner_are_kept():
    from metaapo.meta_learner import MetaLearner

    method = method_with(learner=MetaLearner(seed=0, inputs=["scores", "reward_gaps"]))
    _, columns = prompt_losses(method, 0.2, logps([1.0]), None, torch.tensor([False]), tensor(0.7))
    assert columns.features.tolist() == [pytest.approx([-dpo_loss(0.2, 1.0), 0.7], rel=1e-5)]
    assert isinstance(join([columns, columns]), StepColumns)
    assert join([columns, columns]).features.shape == (2, 2)


def test_the_kl_estimate_is_the_mean_log_ratio_clamped_at_zero():
    assert estimate_kl(tensor(-1, -4), tensor(-2, -3.5)).item() == pytest.approx((1 - 0.5) / 2)
    assert estimate_kl(tensor(-2, -4), tensor(-1, -3)).item() == 0
    assert estimate_kl(torch.zeros(0), torch.zeros(0)).item() == 0
