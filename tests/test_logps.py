"""Sequence log-probabilities: padding, batching and position of the response change nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaapo.data import DataError
from metaapo.models.logps import PROMPT, all_sequence_logps, collate, sequence_logps, token_logps

PROMPTS = [[1, 4, 7, 8, 5], [1, 4, 9, 5], [1, 4, 10, 11, 12, 13, 5]]
RESPONSES = [[9, 10, 2], [11, 2], [12, 13, 14, 15, 2]]


def by_hand(policy, prompt, response):
    logits = policy(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(response))


def test_equal_a_full_forward_of_each_sequence(policy):
    batched = sequence_logps(policy, collate(PROMPTS, RESPONSES, pad_id=0))
    for logp, prompt, response in zip(batched.tolist(), PROMPTS, RESPONSES):
        assert logp == pytest.approx(by_hand(policy, prompt, response), rel=1e-5)


@pytest.mark.parametrize("right", [1, 5])
@pytest.mark.parametrize("rows", [0, 2])
def test_padding_changes_nothing(policy, right, rows):
    """More padding on the right of each row, and entire rows of padding (as a response sees rows of other prompts)."""
    batch = collate(PROMPTS, RESPONSES, pad_id=0)
    height, width = batch.input_ids.shape
    pad = torch.nn.functional.pad
    moved = {
        name: getattr(batch, name) // width * (width + right) + getattr(batch, name) % width
        for name in ("positions", "sources")
    }
    padded = replace(
        batch,
        input_ids=pad(batch.input_ids, (0, right, 0, rows), value=7),
        position_ids=pad(batch.position_ids, (0, right, 0, rows)),
        trees=pad(batch.trees, (0, right, 0, rows), value=-1),
        branches=pad(batch.branches, (0, right, 0, rows), value=PROMPT),
        **moved,
    )
    torch.testing.assert_close(sequence_logps(policy, padded), sequence_logps(policy, batch), rtol=1e-5, atol=1e-5)


def test_responses_to_one_prompt_do_not_see_each_other(policy):
    """A tree of one prompt and three responses gives the same as three sequences, whatever else is in the batch."""
    prompt = PROMPTS[2]
    together = sequence_logps(policy, collate([prompt] * 3, RESPONSES, pad_id=0))
    for logp, response in zip(together.tolist(), RESPONSES):
        assert logp == pytest.approx(by_hand(policy, prompt, response), rel=1e-5)
    assert collate([prompt] * 3, RESPONSES, pad_id=0).input_ids.numel() == len(prompt) + sum(map(len, RESPONSES))


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(6, 20), min_size=1, max_size=7)), min_size=1))
@settings(max_examples=30)
def test_any_mixture_equals_a_full_forward_of_each_sequence(policy, mixture):
    prompts, responses = [PROMPTS[i] for i, _ in mixture], [response for _, response in mixture]
    batched = sequence_logps(policy, collate(prompts, responses, pad_id=0))
    for logp, prompt, response in zip(batched.tolist(), prompts, responses):
        assert logp == pytest.approx(by_hand(policy, prompt, response), rel=1e-4, abs=1e-4)


def test_token_logps_are_laid_out_by_response(policy):
    batch = collate(PROMPTS, RESPONSES, pad_id=0)
    logps = token_logps(policy, batch)
    assert logps.shape == batch.response_mask.shape == (3, 5)
    assert ((logps != 0) == batch.response_mask.bool()).all()
    assert batch.input_ids.flatten()[batch.ends].tolist() == [response[-1] for response in RESPONSES]


def test_batch_size_and_order_change_nothing(policy):
    whole = all_sequence_logps(policy, PROMPTS, RESPONSES, pad_id=0, batch_size=8)
    single = all_sequence_logps(policy, PROMPTS, RESPONSES, pad_id=0, batch_size=1)
    reverse = all_sequence_logps(policy, PROMPTS[::-1], RESPONSES[::-1], pad_id=0, batch_size=2)
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole, reverse.flip(0), rtol=1e-5, atol=1e-5)


def test_pad_tokens_inside_a_response_count_as_tokens(policy):
    """A model whose padding token is its EOS must keep the EOS: masks, not token ids, mark padding."""
    with_eos = sequence_logps(policy, collate([PROMPTS[0]], [[9, 2]], pad_id=2))
    without = sequence_logps(policy, collate([PROMPTS[0]], [[9]], pad_id=2))
    assert with_eos.item() < without.item()


def test_an_empty_response_is_refused():
    with pytest.raises(DataError, match="empty prompt or response"):
        collate(PROMPTS, [[9, 2], [], [2]], pad_id=0)
