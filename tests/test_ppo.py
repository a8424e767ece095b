"""PPO: each detail by hand, then complete runs in a miniature world."""

import math

import numpy as np
import pytest
import torch
from conftest import experiment_document, make_policy, make_reward_model, write_world

from metaapo import policy_gradient as ppo
from metaapo.config import ConfigError
from metaapo.data import read_json, read_jsonl
from metaapo.experiment import Run, resolve
from metaapo.train import train

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])


def test_rewards_are_the_kl_penalty_and_the_score_at_the_last_token():
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 0.0]])
    reference = torch.tensor([[-1.5, -2.0, -2.0], [-2.0, -0.5, 0.0]])
    rewards = ppo.shaped_rewards(torch.tensor([4.0, -2.0]), logps, reference, MASK, kl_coefficient=0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.0, 0.1 + 4.0], [-0.1, 0.05 - 2.0, 0.0]]))


def test_advantages_by_hand():
    """A response of two tokens; the third is padding, whose value must not leak in."""
    rewards, values = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.25, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    last = 2.0 - 0.25
    first = (1.0 + 0.9 * 0.25 - 0.5) + 0.9 * 0.8 * last
    advantages, returns = ppo.advantages_and_returns(rewards, values, mask, discount=0.9, trace=0.8)
    torch.testing.assert_close(advantages, torch.tensor([[first, last, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[first + 0.5, 2.0, 0.0]]))


@pytest.mark.parametrize("trace", [0.0, 1.0])
def test_lambda_zero_and_one_give_one_step_errors_and_full_returns(trace):
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 3) * MASK, torch.randn(2, 3) * MASK
    advantages, _ = ppo.advantages_and_returns(rewards, values, MASK, 1.0, trace)
    following = torch.cat([values[:, 1:], torch.zeros(2, 1)], -1)
    returns = rewards.flip(-1).cumsum(-1).flip(-1)
    expected = (rewards + following - values) if trace == 0 else (returns - values)
    torch.testing.assert_close(advantages, expected * MASK)


def test_whitening_leaves_padding_out():
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0]])
    white = ppo.whiten(x, MASK)
    kept = white[MASK.bool()]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert kept.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    assert white[1, 2] == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope", "clipped"),
    [
        (1.1, 1.0, -1.1, 0),  # inside: the plain surrogate
        (1.5, 1.0, 0.0, 1),  # the gain is past the clip range: no gradient
        (0.5, 1.0, -0.5, 0),  # a loss is never clipped
        (0.5, -1.0, 0.0, 1),
        (1.5, -1.0, 1.5, 0),
    ],
)
def test_the_clipped_surrogate_by_hand(ratio, advantage, slope, clipped):
    logps = torch.tensor([[math.log(ratio)]], requires_grad=True)
    one = torch.ones(1, 1)
    loss, fraction = ppo.policy_loss(logps, torch.zeros(1, 1), advantage * one, one, clip=0.2)
    loss.backward()
    bounded = min(max(ratio, 0.8), 1.2)
    assert loss.item() == pytest.approx(-min(ratio * advantage, bounded * advantage))
    assert logps.grad.item() == pytest.approx(slope, abs=1e-6)
    assert fraction.item() == clipped


@pytest.mark.parametrize(
    ("value", "old", "target", "expected", "clipped"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.9**2, 0),  # inside
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, 1),  # moved too far towards the target: the clipped error is larger
        (0.5, 1.0, 2.0, 0.5 * 1.5**2, 0),  # moved away: the unclipped error is larger
    ],
)
def test_the_clipped_value_loss_by_hand(value, old, target, expected, clipped):
    one = torch.ones(1, 1)
    loss, fraction = ppo.value_loss(value * one, old * one, target * one, one, clip=0.2)
    assert loss.item() == pytest.approx(expected)
    assert fraction.item() == clipped


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant():
    returns = torch.tensor([[1.0, 2.0, 5.0], [3.0, 0.0, 7.0]])
    assert ppo.explained_variance(returns, returns, MASK) == pytest.approx(1)
    assert ppo.explained_variance(torch.full((2, 3), 4.0), returns, MASK) == pytest.approx(0, abs=1e-6)
    assert math.isnan(ppo.explained_variance(returns, torch.ones(2, 3), MASK))


def test_the_kl_coefficient_moves_towards_the_target_by_at_most_a_fifth():
    assert ppo.adapt(0.1, kl=6.6, target=6.0, responses=100, horizon=1000) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert ppo.adapt(0.1, kl=600.0, target=6.0, responses=100, horizon=1000) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert ppo.adapt(0.1, kl=0.0, target=6.0, responses=100, horizon=1000) == pytest.approx(0.1 * (1 - 0.2 * 0.1))


def test_approximate_kl_is_never_negative_and_zero_for_no_change():
    old = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -1.0, 0.0]])
    assert ppo.approximate_kl(old, old, MASK) == 0
    assert ppo.approximate_kl(old - 0.3, old, MASK) > 0
    assert ppo.approximate_kl(old + 0.3, old, MASK) > 0


SEQUENCES = [([1, 4, 6, 5], [7, 8, 2]), ([1, 4, 9, 10, 5], [11, 2]), ([1, 4, 6, 5], [12, 2])]


def test_log_probabilities_and_entropies_equal_a_plain_forward_pass():
    model = make_policy(3)
    logps, entropies = ppo.logps_and_entropies(model, ppo.batch_of(SEQUENCES, 0))
    for i, (prompt, response) in enumerate(SEQUENCES):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        distribution = torch.distributions.Categorical(logits=logits)
        n = len(response)
        torch.testing.assert_close(logps[i, :n], distribution.log_prob(torch.tensor(response)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(entropies[i, :n], distribution.entropy(), rtol=1e-4, atol=1e-5)


def test_values_are_the_reward_models_output_before_each_token():
    model = make_reward_model(2)
    values = ppo.token_values(model, ppo.batch_of(SEQUENCES, 0))
    for i, (prompt, response) in enumerate(SEQUENCES):
        for t in range(len(response)):
            expected = model(torch.tensor([prompt + response[:t]])).logits.item()
            assert values[i, t].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# --- complete runs ----------------------------------------------------------------------------------------------------

PARAMS = {"rollout": 4, "minibatch": 2, "epochs": 2}


def experiment_in(folder, entry=PARAMS, prompts=8, **changes):
    document = experiment_document(folder, methods={"ppo": entry}, iterations=2, seeds=[0], **changes)
    experiment = resolve(document)
    write_world(experiment.world_path(0), pairs=2 * prompts, iterations=2)
    return experiment


def run_of(experiment):
    return experiment.runs()[0]


def read(experiment, iteration, name):
    return read_jsonl(experiment.run_path(run_of(experiment)) / f"iter{iteration}" / name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    experiment = experiment_in(tmp_path_factory.mktemp("results"))
    train(experiment, run_of(experiment))
    return experiment


def test_a_run_has_the_common_records_and_ppos_diagnostics(finished):
    record = read_json(finished.run_path(run_of(finished)) / "run.json")
    for t, summary in enumerate(record["iterations"], start=1):
        rows = read(finished, t, "annotations.jsonl")
        assert summary["responses_scored"] == sum(row["responses_scored"] for row in rows) == 8
        assert summary["annotation_ratio"] == pytest.approx(1 / 3)
        assert {row["outcome"] for row in rows} == {"scored"}
        log = read(finished, t, "train.jsonl")
        assert [row["step"] for row in log] == list(range(1, 2 * 2 * 2 + 1))
        signs = ("kl", "entropy", "clip_fraction", "explained_variance", "eos_rate", "length", "reward", "value_loss")
        assert all(np.isfinite(row[name]) for row in log for name in signs)
        assert {row["step"] for row in read(finished, t, "probes.jsonl")} == ({0, 8} if t == 1 else {8})


def test_the_first_step_of_a_rollout_is_on_policy(finished):
    first = read(finished, 1, "train.jsonl")[0]
    assert first["approximate_kl"] == pytest.approx(0, abs=1e-6)
    assert first["clip_fraction"] == 0
    assert first["kl"] == pytest.approx(0, abs=1e-4)


def test_policy_and_value_model_learn_and_are_carried_over(finished):
    from safetensors.torch import load_file

    folder = finished.run_path(run_of(finished))
    for name in ("model", "value_model"):
        weights = [load_file(folder / f"iter{t}" / name / "model.safetensors") for t in (1, 2)]
        assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_resuming_at_the_second_iteration_gives_the_same_as_one_run(finished, tmp_path):
    """Resuming: all state for the second iteration is on disk."""
    import shutil

    experiment = experiment_in(tmp_path)
    folder = experiment.run_path(run_of(experiment))
    shutil.copytree(finished.run_path(run_of(finished)), folder)
    shutil.rmtree(folder / "iter2")
    train(experiment, run_of(experiment))
    for name in ("train.jsonl", "annotations.jsonl", "model/model.safetensors", "value_model/model.safetensors"):
        original = finished.run_path(run_of(finished)) / "iter2" / name
        assert (folder / "iter2" / name).read_bytes() == original.read_bytes()


def test_more_passes_and_a_budget_are_counted(tmp_path):
    experiment = experiment_in(tmp_path, PARAMS | {"responses": 3, "budget": [0.5]})
    train(experiment, run_of(experiment))
    for row in read(experiment, 1, "annotations.jsonl"):
        assert row["responses_scored"] == (3 if row["sampled"] else 0)
    summary = read_json(experiment.run_path(run_of(experiment)) / "run.json")["iterations"][0]
    assert (summary["sampled"], summary["annotation_ratio"]) == (4, 0.5)


def test_an_adaptive_coefficient_is_carried_over(tmp_path):
    experiment = experiment_in(tmp_path, PARAMS | {"kl_target": 0.01, "kl_horizon": 20})
    train(experiment, run_of(experiment))
    first, second = (read(experiment, t, "train.jsonl") for t in (1, 2))
    assert first[0]["kl_coefficient"] == experiment.train.beta
    summary = read_json(experiment.run_path(run_of(experiment)) / "run.json")["iterations"][0]
    assert second[0]["kl_coefficient"] == summary["kl_coefficient"] != experiment.train.beta


def test_a_cut_response_loses_the_penalty_in_its_returns():
    from metaapo.loop.annotate import scores_of
    from metaapo.models.generate import Response

    policy, value_model = make_policy(3), make_reward_model(2)
    responses = [
        Response("", ids, [], finished) for (_, ids), finished in zip(SEQUENCES[:2], (True, False), strict=True)
    ]
    rollout = ppo.measure(policy, policy, value_model, SEQUENCES[:2], 0)
    scores = torch.tensor(scores_of([2.0, 2.0], responses, cut_penalty=1.5))
    advantages, returns = ppo.estimate(rollout, scores, kl_coefficient=0.0)
    assert returns[0, 2].item() == pytest.approx(2.0)
    assert returns[1, 1].item() == pytest.approx(0.5)
    assert ppo.masked_mean(advantages, rollout.mask).item() == pytest.approx(0, abs=1e-6)


def test_the_penalty_moves_the_update_but_neither_the_logged_nor_the_annotated_reward(finished, tmp_path):
    experiment = experiment_in(tmp_path, PARAMS | {"sampling": {"cut_penalty": 5.0}})
    train(experiment, run_of(experiment))
    ours, theirs = (read(e, 1, "train.jsonl")[0] for e in (experiment, finished))
    assert ours["eos_rate"] == theirs["eos_rate"] < 1
    assert ours["reward"] == theirs["reward"]
    assert ours["value_loss"] > theirs["value_loss"]


def rise(rows, name):
    """By how much the last three rollouts' mean exceeds the first rollout's value."""
    values = [row[name] for row in rows]
    return np.mean(values[-3:]) - values[0]


def test_ppo_raises_the_reward_and_its_value_model_learns(tmp_path):
    """Many passes over a few prompts: scores of the policy's samples rise, and values learn to predict returns.

    The bounds are less than half of what seeds 0 to 3 gave, since rounding on another processor
    changes the course of training.
    """
    entry = {
        "rollout": 32,
        "minibatch": 32,
        "epochs": 4,
        "responses": 64,
        "value_lr": 1e-2,
        "sampling": {"cut_penalty": 0.0},
    }
    settings = {"batch_size": 4, "micro_batch_size": 4, "lr": 1e-2, "beta": 0.01}
    experiment = experiment_in(tmp_path, entry, prompts=4, train=settings)
    train(experiment, run_of(experiment))
    rollouts = [read(experiment, iteration, "train.jsonl")[::4] for iteration in (1, 2)]
    assert sum(rise(rows, "reward") for rows in rollouts) > 0.8
    assert sum(rise(rows, "explained_variance") for rows in rollouts) > 0.5


def test_a_budget_that_leaves_no_prompt_is_reported(tmp_path):
    experiment = experiment_in(tmp_path, PARAMS | {"budget": [0.01]})
    with pytest.raises(ConfigError, match=r"ppo/budget0\.01/seed0: the budget leaves no prompt in iteration 1"):
        train(experiment, Run(method="ppo", budget=0.01, seed=0))
