"""Sequence log-probabilities: padding, batching and position of the response change nothing."""

import pytest
import torch

from metaapo.data import DataError
from metaapo.logps import SequenceBatch, all_sequence_logps, collate, sequence_logps

PROMPTS = [[1, 4, 7, 8, 5], [1, 4, 9, 5], [1, 4, 10, 11, 12, 13, 5]]
RESPONSES = [[9, 10, 2], [11, 2], [12, 13, 14, 15, 2]]


def by_hand(policy, prompt, response):
    logits = policy(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(response))


def test_equal_a_full_forward_of_each_sequence(policy):
    batched = sequence_logps(policy, collate(PROMPTS, RESPONSES, pad_id=0))
    for logp, prompt, response in zip(batched.tolist(), PROMPTS, RESPONSES):
        assert logp == pytest.approx(by_hand(policy, prompt, response), rel=1e-5)


@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("right", [0, 1, 5])
def test_padding_on_either_side_changes_nothing(policy, left, right):
    batch = collate(PROMPTS, RESPONSES, pad_id=0)
    pad = torch.nn.functional.pad
    padded = SequenceBatch(
        pad(batch.input_ids, (left, right)),
        pad(batch.attention_mask, (left, right)),
        pad(batch.response_mask, (0, right)),
    )
    torch.testing.assert_close(sequence_logps(policy, padded), sequence_logps(policy, batch), rtol=1e-5, atol=1e-5)


def test_batch_size_and_order_change_nothing(policy):
    whole = all_sequence_logps(policy, PROMPTS, RESPONSES, pad_id=0, batch_size=8)
    single = all_sequence_logps(policy, PROMPTS, RESPONSES, pad_id=0, batch_size=1)
    reverse = all_sequence_logps(policy, PROMPTS[::-1], RESPONSES[::-1], pad_id=0, batch_size=2)
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole, reverse.flip(0), rtol=1e-5, atol=1e-5)


def test_pad_tokens_inside_a_response_count_as_tokens(policy):
    """A model whose padding is its EOS must not lose the EOS: masks, not token ids, say what is padding."""
    with_eos = sequence_logps(policy, collate([PROMPTS[0]], [[9, 2]], pad_id=2))
    without = sequence_logps(policy, collate([PROMPTS[0]], [[9]], pad_id=2))
    assert with_eos.item() < without.item()


def test_an_empty_response_is_refused():
    with pytest.raises(DataError, match="empty prompt or response"):
        collate(PROMPTS, [[9, 2], [], [2]], pad_id=0)
