"""The conformance kit: every method passes, and no planted bug does."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from conformance import checks, exact, ppo
from conformance.answers import CASES
from conformance.command import main
from conformance.methods import check_method
from metaapo import metaapo, policy_gradient
from metaapo.loop import epoch, forward, offline, online, step
from metaapo.losses import Objective
from metaapo.meta_learner import MetaLearner
from metaapo.method import known_declarations, known_methods
from metaapo.models.logps import SequenceBatch, token_logps

WORLD = exact.make_world()


# --- the program as it is ---------------------------------------------------------------------------------------------


def test_every_method_passes(capsys):
    assert main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    compared = {check["subject"] for check in report["checks"] if check["name"] == "gradient"}
    trained = {name for name, declared in known_declarations().items() if declared.trains}
    assert compared == {*CASES, "ppo"}
    assert trained == {case.module for case in CASES.values()} | {"ppo"}
    optima = {check["subject"]: check["error"] for check in report["checks"] if check["name"].endswith("optimum")}
    assert {"dpo", "online_dpo", "ipo", "simpo", "ppo", "metaapo, uniform weights"} <= optima.keys()
    assert max(optima.values()) < 1e-6


def test_the_world_leaves_nothing_untested():
    """Some prompts are sampled by a threshold and some are not, and KTO's z is above 0."""
    scores = -CASES["dpo"].answer.loss(pairs(), 0.7)
    chosen = CASES["adpo"].answer.sampled(checks.Seen(scores, None, scores))
    assert 0 < chosen.mean() < 1
    assert 0 < np.mean(scores < np.log(0.5)) < 1
    assert pairs().kl > 0.1
    assert len({len(response) for response in exact.RESPONSES}) > 2


def pairs():
    from conformance.answers import outcomes_of, pairs_of

    rows = outcomes_of(WORLD, checks.offline_rows(), CASES["dpo"].answer)
    return pairs_of(WORLD, rows, WORLD.policy, rows.chosen, rows.rejected)


@pytest.mark.parametrize("optimum", ["kl", "ipo", "simpo"])
def test_an_optimum_is_a_distribution_and_another_one_than_the_start(optimum):
    best = checks.optimum_of(WORLD, optimum)
    assert best.sum(-1) == pytest.approx(1)
    assert exact.total_variation(best, np.exp(exact.logps(WORLD.policy))) > 0.1


def test_weights_that_depend_on_the_label_move_the_optimum():
    """At ref exp(r / beta) the two labels of a pair balance if they weigh the same, and not if w follows the score."""
    from conformance.answers import BETA, losses_of, outcomes_of, terms_of

    rows = checks.offline_rows()
    probability = np.array([checks.label_probability(WORLD, row) for row in rows])
    best = replace(WORLD, policy=exact.logits_of(exact.kl_optimum(WORLD, BETA)))

    def slope(name):
        answer = CASES[name].answer
        outcomes = outcomes_of(best, rows, answer)

        def loss(logits):
            return (losses_of(terms_of(best, answer, outcomes, logits, BETA, None)) * probability).sum(-1)

        return abs(exact.gradient(loss, best.policy)).max()

    assert slope("dpo") < 1e-12
    assert slope("mixing") < 1e-12
    assert slope("metaapo, no meta-learner") > 1e-3


def test_derivatives_by_complex_steps():
    found = exact.gradient(lambda logits: np.exp(exact.logps(logits))[:, 0, 1], WORLD.policy)
    p = np.exp(exact.logps(WORLD.policy))[0]
    root = [p[0], p[1] + p[2], p[3]]
    expected = [p[1] * ((i == 1) - q) for i, q in enumerate(root)]
    assert found[0, :3] == pytest.approx(expected)
    assert (found[1] == 0).all()


# --- planted bugs -----------------------------------------------------------------------------------------------------


def objective(change, place=step):
    """Plant another loss of a pair; `change` gets the right one."""

    def plant(monkeypatch):
        right = place.objective_of

        def wrong(method):
            found = right(method)
            return Objective(lambda pairs, beta: change(found.loss, pairs, beta), found.uses_kl)

        monkeypatch.setattr(place, "objective_of", wrong)

    return plant


def columns(change):
    """Plant other log-probabilities of pairs; `change` gets the right ones."""

    def plant(monkeypatch):
        right = forward.pair_logps
        monkeypatch.setattr(forward, "pair_logps", lambda *arguments: change(right(*arguments)))

    return plant


def instead(place, name, make):
    """Plant another function or method; `make` gets the right one."""
    return lambda monkeypatch: monkeypatch.setattr(place, name, make(getattr(place, name)))


def swapped(p):
    return replace(
        p,
        chosen=p.rejected,
        rejected=p.chosen,
        reference_chosen=p.reference_rejected,
        reference_rejected=p.reference_chosen,
        chosen_length=p.rejected_length,
        rejected_length=p.chosen_length,
    )


def reference_swapped(p):
    return replace(p, reference_chosen=p.reference_rejected, reference_rejected=p.reference_chosen)


def reference_follows_the_policy(p):
    return replace(p, reference_chosen=p.chosen, reference_rejected=p.rejected)


def reference_forgotten(p):
    return replace(p, reference_chosen=0 * p.chosen.detach(), reference_rejected=0 * p.rejected.detach())


def padding_counts(right):
    def padded(self, values):
        return right(self, values) + (right(self, torch.ones_like(values)) == 0) * values.mean()

    return padded


def mean_over_tokens(right):
    def sequence_logps(model, batch):
        return token_logps(model, batch).sum(-1) / batch.response_mask.sum(-1)

    return sequence_logps


def weights_with_gradient(monkeypatch):
    def offline_pairs(method, logps, losses, reward_gaps, beta):
        return step.OfflinePairs(-losses, 0 * losses.detach(), reward_gaps)

    monkeypatch.setattr(step, "offline_pairs", offline_pairs)
    held = MetaLearner.weigh  # when prompts are selected
    monkeypatch.setattr(MetaLearner, "weigh", lambda self, f: self(f) if f.requires_grad else held(self, f))


def batch_is_summed(right):
    def losses(bench, method, model, micro):
        found, seen = right(bench, method, model, micro)
        return found * len(micro), seen

    return losses


def last_online_pairs_first(right):
    def prompt_losses(method, beta, offline, pairs, has_online, *others):
        return right(method, beta, offline, pairs, has_online.flip(0), *others)

    return prompt_losses


SHARED = [name for name in known_methods() if name in CASES]
WITH_REFERENCE = [name for name in SHARED if name != "simpo"]
ONLINE = [name for name in SHARED if known_declarations()[name].sampled]
PARTLY_ONLINE = ["adpo", "random", "mixing", "oracle", "metaapo"]
LEARNED = ["metaapo", "metaapo, simpo"]

BUGS = {
    "flipped sign": (objective(lambda loss, p, beta: -loss(p, beta)), "gradient", SHARED),
    "twice the beta": (objective(lambda loss, p, beta: loss(p, 2 * beta)), "gradient", SHARED),
    "chosen and rejected swapped": (columns(swapped), "gradient", SHARED),
    "reference swapped": (columns(reference_swapped), "gradient", WITH_REFERENCE),
    "reference forgotten": (columns(reference_forgotten), "gradient", WITH_REFERENCE),
    "reference follows the policy": (columns(reference_follows_the_policy), "gradient", WITH_REFERENCE),
    "padding counts": (instead(SequenceBatch, "padded", padding_counts), "losses", SHARED),
    "mean over tokens": (instead(forward, "sequence_logps", mean_over_tokens), "gradient", SHARED),
    "sum over the batch": (instead(epoch, "micro_batch_losses", batch_is_summed), "batch", ["dpo", "metaapo"]),
    "w and 1 - w swapped": (
        instead(step, "mixed_loss", lambda right: lambda w, off, on: right(1 - w, off, on)),
        "gradient",
        ["dpo", "online_dpo", "selm", "adpo", "metaapo"],
    ),
    "online pairs elsewhere": (instead(epoch, "prompt_losses", last_online_pairs_first), "losses", PARTLY_ONLINE),
    "weights not detached": (weights_with_gradient, "gradient", ["metaapo", "metaapo, no meta-learner"]),
    "z not detached": (
        instead(forward, "all_sequence_logps", lambda right: right.__wrapped__),
        "gradient",
        ["kto", "metaapo, kto"],
    ),
    "z not detached from the reference": (
        instead(forward, "all_sequence_logps", lambda right: right.__wrapped__),
        "reference",
        ["kto", "metaapo, kto"],
    ),
    "twice the beta in the scores": (
        objective(lambda loss, p, beta: loss(p, 2 * beta), offline),
        "scores",
        ["selective_dpo", "adpo", "metaapo"],
    ),
    "w of half the score": (
        instead(MetaLearner, "features", lambda right: lambda self, pairs: right(self, pairs) / 2), "weights", LEARNED
    ),
    "worst response chosen": (
        instead(online, "best_worst", lambda right: lambda texts, scores: right(texts, [-s for s in scores])),
        "pairs",
        ONLINE,
    ),
    "u < w": (
        instead(metaapo, "by_probability", lambda right: lambda p, *others: right(1 - p, *others)),
        "selection",
        LEARNED,
    ),
    "draws ignore the probability": (
        instead(
            metaapo, "by_probability", lambda right: lambda *a: replace(right(*a), sampled=right(*a).probability > 0.5)
        ),
        "draws",
        LEARNED,
    ),
    "meta-learner climbs": (
        instead(MetaLearner, "update", lambda right: lambda self, f, off, on: right(self, f, on, off)),
        "meta-gradient",
        LEARNED,
    ),
    "meta-learner never learns": (
        instead(MetaLearner, "observe", lambda right: lambda self, *seen: None), "meta-update", LEARNED
    ),
    "meta-learner learns at every step": (
        instead(MetaLearner, "observe", lambda right: lambda self, *seen: self.update(*seen)), "meta-update", LEARNED
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bug", "name"), [(bug, name) for bug, (_, _, names) in BUGS.items() for name in names])
def test_a_planted_bug_is_caught(bug, name, monkeypatch, tmp_path):
    plant, check, _ = BUGS[bug]
    plant(monkeypatch)
    assert failures(checks.iterate(CASES[name], "method", WORLD, tmp_path), [check]) == [check]


def failures(iteration, names):
    compute = checks.CHECKS | checks.META_CHECKS
    return [name for name in names if not compute[name](iteration) <= checks.TOLERANCES.get(name, checks.EXACT)]


PPO_BUGS = {
    "flipped sign": ("policy_loss", lambda right: lambda *a: tuple(-x for x in right(*a)), "gradient"),
    "rewarded for KL": ("shaped_rewards", lambda right: lambda s, p, r, m, b: right(s, p, r, m, -b), "gradient"),
    "twice the beta": ("shaped_rewards", lambda right: lambda s, p, r, m, b: right(s, p, r, m, 2 * b), "gradient"),
    "reference forgotten": ("shaped_rewards", lambda right: lambda s, p, r, m, b: right(s, p, 0 * r, m, b), "gradient"),
    "score forgotten": ("shaped_rewards", lambda right: lambda s, p, r, m, b: right(0 * s, p, r, m, b), "gradient"),
    "padding counts": ("masked_mean", lambda right: lambda x, mask: (x * mask).mean(), "gradient"),
    "not clipped": (
        "policy_loss", lambda right: lambda n, o, a, m, clip: right(n, o, a, m, 1e9), "clipped surrogate"
    ),
    "old policy not held": (
        "policy_loss", lambda right: lambda n, o, a, m, clip: right(n, n.detach(), a, m, clip), "clipped surrogate"
    ),
    "no discount": (
        "advantages_and_returns", lambda right: lambda r, v, m, discount, trace: right(r, v, m, 1.0, trace),
        "advantages",
    ),
    "values not clipped": (
        "value_loss", lambda right: lambda v, o, g, m, clip: right(v, o, g, m, 1e9), "value gradient"
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", PPO_BUGS)
def test_a_bug_planted_in_ppo_is_caught(bug, monkeypatch, tmp_path):
    name, make, check = PPO_BUGS[bug]
    instead(policy_gradient, name, make)(monkeypatch)
    errors = {}
    if check == "gradient":
        errors[check] = ppo.check_first_gradient("ppo", WORLD, tmp_path)
    else:
        errors = ppo.check_later_steps("ppo", WORLD, tmp_path)
    assert errors[check] > checks.EXACT


def test_training_with_a_bug_ends_elsewhere(monkeypatch, tmp_path, capsys):
    """The command reports each failed check, and its exit status is 1."""
    columns(reference_forgotten)(monkeypatch)
    assert main(["--only", "dpo"]) == 1
    table = capsys.readouterr().out.splitlines()
    failed = {re.split(r"  +", line)[1] for line in table if line.endswith("NO")}
    assert {"losses", "gradient", "batch", "kl optimum"} <= failed
    assert table[-1] == f"10 checks, {len(failed)} failed"


def test_an_error_in_a_method_is_a_failed_check(monkeypatch, tmp_path):
    monkeypatch.setattr(step, "mixed_loss", lambda *parts: 1 / 0)
    (found,) = check_method("dpo", tmp_path)
    assert not found.ok
    assert "ZeroDivisionError" in found.note


# --- losses by import path --------------------------------------------------------------------------------------------

OWN = """
from torch.nn.functional import logsigmoid

def right(chosen, rejected, reference_chosen, reference_rejected, beta):
    return -logsigmoid(beta * (chosen - reference_chosen - rejected + reference_rejected))

def tuple_of_three(*columns):
    return right(*columns), None, None

def flipped(*columns):
    return right(*columns[:4], -columns[4])

def wrong_beta(*columns):
    return right(*columns[:4], 1.1 * columns[4])

def swapped(chosen, rejected, *others):
    return right(rejected, chosen, *others)

def reference_swapped(chosen, rejected, reference_chosen, reference_rejected, beta):
    return right(chosen, rejected, reference_rejected, reference_chosen, beta)

def half_detached(chosen, rejected, *others):
    return right(chosen, rejected.detach(), *others)

def mean(*columns):
    return right(*columns).mean()

def centred(*columns):
    losses = right(*columns)
    return losses - losses.mean().detach()

def per_token(chosen, rejected, reference_chosen, reference_rejected, beta, chosen_lengths, rejected_lengths):
    sides = (chosen - reference_chosen) / chosen_lengths, (rejected - reference_rejected) / rejected_lengths
    return -logsigmoid(beta * (sides[0] - sides[1]))

def squared(chosen, rejected, reference_chosen, reference_rejected, beta, chosen_lengths, rejected_lengths):
    sides = (chosen - reference_chosen) / chosen_lengths, (rejected - reference_rejected) / rejected_lengths
    return (sides[0] - sides[1] - 1 / (2 * beta)) ** 2

def surrogate(logps, old_logps, advantages, mask):
    return -((logps - old_logps).exp() * advantages * mask).sum() / mask.sum()

def unmasked_surrogate(logps, old_logps, advantages, mask):
    return -((logps - old_logps).exp() * advantages).mean()

not_a_function = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_losses", raising=False)
    return "own_losses"


def failed(arguments, capsys):
    """Names of the checks that fail, by the command's JSON."""
    status = main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    names = {check["name"] for check in report["checks"] if not check["ok"]}
    assert status == bool(names) == (not report["ok"])
    return names


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("right", ["--equals", "dpo"], set()),
        ("right", ["--beta", "0.3", "--equals", "dpo"], set()),
        ("tuple_of_three", ["--equals", "dpo"], set()),
        ("squared", ["--optimum", "ipo", "--equals", "ipo"], set()),
        ("surrogate", ["--kind", "policy-gradient"], set()),
        ("flipped", [], {"kl optimum"}),
        ("wrong_beta", ["--equals", "dpo"], {"kl optimum", "equals dpo"}),
        ("swapped", [], {"kl optimum"}),
        ("reference_swapped", [], {"kl optimum"}),
        ("half_detached", [], {"gradient", "kl optimum"}),
        ("mean", ["--optimum", "none"], {"a loss per pair", "each pair alone", "gradient"}),
        ("centred", ["--optimum", "none"], {"each pair alone", "gradient"}),
        ("per_token", [], {"kl optimum"}),
    ],
)  # fmt: skip
def test_somebody_elses_loss(own, name, options, expected, capsys):
    assert failed([f"{own}:{name}", *options], capsys) == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_losses", "expected package.module:function"),
        ("own_losses:", "expected package.module:function"),
        ("no_such_module:loss", "importing no_such_module failed with ModuleNotFoundError"),
        ("own_losses:nothing", "nothing does not exist in .*own_losses.py"),
        ("own_losses:not_a_function", "not_a_function is not a function"),
    ],
)
def test_a_wrong_import_path_is_one_sentence(own, path, message):
    with pytest.raises(SystemExit, match=message):
        main([path])


def test_an_unknown_method_is_one_sentence():
    with pytest.raises(SystemExit, match="dpoo: no such method; expected one of metaapo, adpo"):
        main(["--only", "dpoo"])
