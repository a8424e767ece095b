"""Losses: parity with TRL, an independent implementation, and identities."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import make_policy, random_text
from hypothesis import given
from hypothesis import strategies as st

from conformance.answers import GAMMA
from conformance.command import main as conformance
from metaapo.loop.forward import mismatched_logps
from metaapo.loop.prompts import PreferencePair
from metaapo.loop.step import estimate_kl
from metaapo.losses import PairLogps, dpo, ipo, kto, simpo
from metaapo.models.load import encode_prompt, encode_response
from metaapo.models.logps import all_sequence_logps, collate, sequence_logps


def pair_logps(chosen, rejected, reference_chosen=0.0, reference_rejected=0.0, lengths=(1.0, 1.0)):
    return PairLogps(
        *(torch.tensor([float(x)]) for x in (chosen, rejected, reference_chosen, reference_rejected, *lengths))
    )


@given(st.floats(-50, 0), st.floats(-50, 0), st.floats(0.01, 5))
def test_dpo_is_log_two_where_the_policy_is_the_reference(chosen, rejected, beta):
    pairs = pair_logps(chosen, rejected, chosen, rejected)
    assert dpo(pairs, beta).item() == pytest.approx(0.6931472, rel=1e-6)


@given(st.floats(-20, 0), st.floats(-20, 0), st.floats(-20, 0), st.floats(-20, 0))
def test_dpo_falls_as_the_margin_grows(a, b, c, d):
    pairs = pair_logps(a, b, c, d)
    better = pair_logps(a + 1, b, c, d)
    assert dpo(better, 0.1).item() < dpo(pairs, 0.1).item()


@pytest.fixture(scope="module")
def texts():
    import numpy as np

    rng = np.random.default_rng(3)
    return [tuple(random_text(rng) for _ in range(3)) for _ in range(8)]


def kl_of(policy, reference, prompts, pairs, pad_id):
    """The shared loop's estimate of the KL divergence."""

    def logps(model, prompts, responses):
        return all_sequence_logps(model, prompts, responses, pad_id)

    return estimate_kl(*mismatched_logps(logps, policy, reference, prompts, pairs))


def our_loss_and_gradient(objective, policy, reference, tokenizer, texts, **settings):
    """Loss and gradient as the shared loop computes them; KTO's KL comes from the loop's own estimate."""
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": p}]) for p, _, _ in texts]
    chosen = [encode_response(tokenizer, c) for _, c, _ in texts]
    rejected = [encode_response(tokenizer, r) for _, _, r in texts]
    batch = collate([*prompts, *prompts], [*chosen, *rejected], tokenizer.pad_token_id)
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch).chunk(2)
    policy.zero_grad()
    logps = sequence_logps(policy, batch).chunk(2)
    lengths = [torch.tensor([float(len(r)) for r in side]) for side in (chosen, rejected)]
    pairs = [PreferencePair(c, r) for c, r in zip(chosen, rejected)]
    kl = kl_of(policy, reference, prompts, pairs, tokenizer.pad_token_id)
    assert kl > 0 or objective is not kto
    loss = objective(PairLogps(*logps, *reference_logps, *lengths, kl=kl), **settings).mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


def trl_loss_and_gradient(trainer_name, policy, reference, tokenizer, texts, folder, **settings):
    import trl
    from datasets import Dataset
    from trl.experimental import cpo

    def rendered(p):
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True
        )

    source = cpo if trainer_name == "CPO" else trl
    rows = [{"prompt": rendered(p) + " ", "chosen": c, "rejected": r} for p, c, r in texts]
    arguments = getattr(source, f"{trainer_name}Config")(
        output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        disable_dropout=True, **settings,
    )  # fmt: skip
    models = (policy,) if trainer_name == "CPO" else (policy, reference)
    trainer = getattr(source, f"{trainer_name}Trainer")(
        *models, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


PARITY = {
    "dpo": (dpo, {"beta": 0.3}, "DPO", {"beta": 0.3, "max_length": None}),
    "ipo": (ipo, {"beta": 0.7}, "DPO", {"beta": 0.7, "loss_type": "ipo", "max_length": None}),
    "simpo": (
        simpo, {"beta": 2.5, "gamma": 0.6},
        "CPO", {"beta": 2.5, "simpo_gamma": 0.6, "loss_type": "simpo", "cpo_alpha": 0.0, "max_length": 48},
    ),
    "kto": (
        kto, {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.8},
        "KTO", {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.8, "max_length": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARITY)
def test_loss_and_gradient_equal_trl(name, tokenizer, texts, tmp_path):
    objective, settings, trainer_name, their_settings = PARITY[name]
    size = len(texts) * (2 if trainer_name == "KTO" else 1)  # KTO counts responses
    their_settings = their_settings | {"per_device_train_batch_size": size}
    policy, reference = make_policy(1), make_policy(2)
    if name == "kto":  # so that the KL estimate is above 0 and part of the comparison
        policy, reference = reference, policy
    ours, our_gradient = our_loss_and_gradient(objective, policy, reference, tokenizer, texts, **settings)
    theirs, their_gradient = trl_loss_and_gradient(
        trainer_name, policy, reference, tokenizer, texts, tmp_path, **their_settings
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert (our_gradient - their_gradient).norm() <= 1e-5 * their_gradient.norm()
    assert their_gradient.norm() > 0.01


def trl_loss(loss_type, chosen, rejected, beta):
    """TRL's loss of CPO: DPO's, IPO's or SimPO's if it gets their log-ratios in place of log-probabilities."""
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(loss_type=loss_type, beta=beta, alpha=0.0, label_smoothing=0.0, simpo_gamma=GAMMA)
    trainer.accelerator = SimpleNamespace(device="cpu")
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)


def trl_dpo(chosen, rejected, reference_chosen, reference_rejected, beta):
    return trl_loss("sigmoid", chosen - reference_chosen, rejected - reference_rejected, beta)


def trl_ipo(chosen, rejected, reference_chosen, reference_rejected, beta, chosen_lengths, rejected_lengths):
    sides = (chosen - reference_chosen) / chosen_lengths, (rejected - reference_rejected) / rejected_lengths
    return trl_loss("ipo", *sides, beta)


def trl_simpo(chosen, rejected, reference_chosen, reference_rejected, beta, chosen_lengths, rejected_lengths):
    return trl_loss("simpo", chosen / chosen_lengths, rejected / rejected_lengths, beta)


@pytest.mark.parametrize(("formula", "optimum"), [("dpo", "kl"), ("ipo", "ipo"), ("simpo", "simpo")])
def test_the_conformance_kit_passes_trls_losses(formula, optimum, capsys):
    assert conformance([f"{__name__}:trl_{formula}", "--equals", formula, "--optimum", optimum]) == 0
    assert "5 checks, none failed" in capsys.readouterr().out


def test_ipo_by_hand():
    """Per token: chosen (-4 + 6) / 4 = 0.5, rejected (-9 + 8) / 2 = -0.5; (1 - 1 / (2 * 0.25))^2 = 1."""
    assert ipo(pair_logps(-4, -9, -6, -8, (4, 2)), 0.25).item() == pytest.approx(1.0)


def test_simpo_by_hand():
    """Averages -1 and -3: sigmoid(2 * 2 - 0.5)."""
    pairs = pair_logps(-4, -6, 7, 7, (4, 2))
    assert simpo(pairs, 2.0, 0.5).item() == pytest.approx(math.log1p(math.exp(-3.5)))


def test_kto_weights_each_response_against_the_baseline():
    pairs = replace(pair_logps(-4, -9, -6, -8), kl=torch.tensor(0.5))
    expected = (2.0 * (1 - 1 / (1 + math.exp(-1.5))) + 1 - 1 / (1 + math.exp(-1.5))) / 2
    assert kto(pairs, 1.0, desirable_weight=2.0).item() == pytest.approx(expected)


def test_a_kl_estimate_is_zero_for_one_pair_and_for_the_reference_itself(policy):
    prompt, pair, other = [1, 4, 6, 5], PreferencePair([7, 2], [8, 9, 2]), make_policy(5)
    assert kl_of(other, policy, [prompt], [pair], 0) == 0
    assert kl_of(policy, policy, [prompt, prompt], [pair, pair], 0) == 0
    assert (
        kl_of(other, policy, [prompt, prompt], [pair, pair], 0) + kl_of(policy, other, [prompt] * 2, [pair] * 2, 0) > 0
    )
