"""Losses: parity with TRL, an independent implementation, and identities."""

import pytest
import torch
from conftest import make_policy, random_text
from hypothesis import given
from hypothesis import strategies as st

from metaapo.logps import collate, sequence_logps
from metaapo.losses import PairLogps, dpo
from metaapo.models import encode_prompt, encode_response


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


def our_loss_and_gradient(policy, reference, tokenizer, texts, beta):
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": p}]) for p, _, _ in texts]
    chosen = [encode_response(tokenizer, c) for _, c, _ in texts]
    rejected = [encode_response(tokenizer, r) for _, _, r in texts]
    batch = collate([*prompts, *prompts], [*chosen, *rejected], tokenizer.pad_token_id)
    with torch.no_grad():
        reference_logps = sequence_logps(reference, batch).chunk(2)
    policy.zero_grad()
    logps = sequence_logps(policy, batch).chunk(2)
    lengths = [torch.tensor([float(len(r)) for r in side]) for side in (chosen, rejected)]
    loss = dpo(PairLogps(*logps, *reference_logps, *lengths), beta).mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


def trl_loss_and_gradient(policy, reference, tokenizer, texts, beta, folder):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    def rendered(p):
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True
        )

    rows = [{"prompt": rendered(p) + " ", "chosen": c, "rejected": r} for p, c, r in texts]
    arguments = DPOConfig(
        output_dir=str(folder), beta=beta, per_device_train_batch_size=len(rows), report_to=[], use_cpu=True,
        bf16=False, gradient_checkpointing=False, max_length=None, disable_dropout=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        policy, reference, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    policy.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


def test_dpo_loss_and_gradient_equal_trl(tokenizer, texts, tmp_path):
    policy, reference = make_policy(1), make_policy(2)
    ours, our_gradient = our_loss_and_gradient(policy, reference, tokenizer, texts, beta=0.3)
    theirs, their_gradient = trl_loss_and_gradient(policy, reference, tokenizer, texts, 0.3, tmp_path)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert (our_gradient - their_gradient).norm() <= 1e-5 * their_gradient.norm()
    assert their_gradient.norm() > 0.01
