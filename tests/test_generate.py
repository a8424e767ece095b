"""Sampling: log-probabilities agree with a full forward, greedy agrees with transformers, seeds repeat."""

import numpy as np
import pytest
import torch
from conftest import make_policy, random_text

from metaapo.data import DataError
from metaapo.models.generate import generate
from metaapo.models.kv_cache import GrowingCache
from metaapo.models.load import encode_prompt
from metaapo.models.logps import all_sequence_logps

SETTINGS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 10, "batch_size": 16, "seed": 5}


@pytest.fixture(scope="module")
def conversations():
    rng = np.random.default_rng(0)
    return [[{"role": "user", "content": random_text(rng)}] for _ in range(7)]


def test_sampled_logps_equal_a_full_forward(policy, tokenizer, conversations):
    responses = generate(policy, tokenizer, conversations, n=4, **SETTINGS)
    prompts = [encode_prompt(tokenizer, c) for c in conversations for _ in range(4)]
    flat = [response for own in responses for response in own]
    recomputed = all_sequence_logps(policy, prompts, [r.token_ids for r in flat], tokenizer.pad_token_id)
    np.testing.assert_allclose([sum(r.logps) for r in flat], recomputed.numpy(), rtol=1e-4)


def test_greedy_equals_transformers_generate(policy, tokenizer, conversations):
    ours = generate(policy, tokenizer, conversations, n=1, **SETTINGS | {"temperature": 0.0})
    for conversation, (response,) in zip(conversations, ours):
        ids = torch.tensor([encode_prompt(tokenizer, conversation)])
        theirs = policy.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10)
        assert response.token_ids == theirs[0, ids.shape[1] :].tolist()


def test_the_same_seed_gives_the_same_responses_and_another_seed_others(policy, tokenizer, conversations):
    first = generate(policy, tokenizer, conversations, n=2, **SETTINGS)
    assert first == generate(policy, tokenizer, conversations, n=2, **SETTINGS)
    assert first != generate(policy, tokenizer, conversations, n=2, **SETTINGS | {"seed": 6})


def test_sampling_follows_the_model_s_probabilities(tokenizer):
    """First tokens of 4,000 samples against the softmax at temperature 0.7: total variation is small."""
    policy, n = make_policy(3), 4000
    conversation = [{"role": "user", "content": "list three animals"}]
    settings = SETTINGS | {"temperature": 0.7, "max_new_tokens": 1, "batch_size": n}
    (responses,) = generate(policy, tokenizer, [conversation], n=n, **settings)
    counts = np.bincount([r.token_ids[0] for r in responses], minlength=policy.config.vocab_size)
    logits = policy(input_ids=torch.tensor([encode_prompt(tokenizer, conversation)])).logits[0, -1]
    expected = (logits / 0.7).softmax(-1).detach().numpy()
    assert abs(counts / n - expected).sum() / 2 < 0.05


def test_top_p_takes_only_the_nucleus(policy, tokenizer):
    conversation = [{"role": "user", "content": "sort 7 3 9"}]
    settings = SETTINGS | {"top_p": 0.3, "max_new_tokens": 1, "batch_size": 500}
    (responses,) = generate(policy, tokenizer, [conversation], n=500, **settings)
    logits = policy(input_ids=torch.tensor([encode_prompt(tokenizer, conversation)])).logits[0, -1]
    probabilities, tokens = logits.softmax(-1).sort(descending=True)
    nucleus = tokens[: int((probabilities.cumsum(-1) < 0.3).sum()) + 1].tolist()
    assert {r.token_ids[0] for r in responses} <= set(nucleus)


def test_finished_means_that_eos_was_sampled(policy, tokenizer, conversations):
    for own in generate(policy, tokenizer, conversations, n=4, **SETTINGS):
        for response in own:
            assert response.finished == (response.token_ids[-1] == tokenizer.eos_token_id)
            assert tokenizer.eos_token_id not in response.token_ids[:-1]
            assert response.finished or len(response.token_ids) == 10


def test_a_prompt_longer_than_the_context_is_an_error(policy, tokenizer):
    long = [{"role": "user", "content": " ".join(["cat"] * 60)}]
    with pytest.raises(DataError, match=r"prompt 1: \d+ tokens and max_new_tokens 10 exceed .* context of 64"):
        generate(policy, tokenizer, [[{"role": "user", "content": "cat"}], long], n=1, **SETTINGS)


def test_responses_do_not_depend_on_the_batch(policy, tokenizer, conversations):
    alone = generate(policy, tokenizer, conversations, n=4, **SETTINGS | {"batch_size": 4})
    together = generate(policy, tokenizer, conversations, n=4, **SETTINGS | {"batch_size": 28})
    for own, other in zip(alone, together, strict=True):
        assert [response.token_ids for response in own] == [response.token_ids for response in other]
        for one, two in zip(own, other, strict=True):
            np.testing.assert_allclose(one.logps, two.logps, rtol=1e-4, atol=1e-5)


def test_a_conversation_with_its_own_seed_and_temperature_is_answered_as_if_alone(policy, tokenizer, conversations):
    warmth, seeds = [0.0, 0.7, 1.0] * len(conversations), range(100)
    each = {"temperature": warmth[: len(conversations)], "seed": [*seeds][: len(conversations)]}
    together = generate(policy, tokenizer, conversations, n=2, **SETTINGS | each)
    for i, own in enumerate(together):
        alone = {"temperature": [warmth[i]], "seed": [seeds[i]]}
        (other,) = generate(policy, tokenizer, [conversations[i]], n=2, **SETTINGS | alone)
        assert [response.token_ids for response in own] == [response.token_ids for response in other]
        assert (own[0].token_ids == own[1].token_ids) or warmth[i] > 0
    greedy = generate(policy, tokenizer, conversations, n=2, **SETTINGS | {"temperature": 0.0})
    assert together[0] == greedy[0]


def test_a_cache_that_outgrows_its_room_and_loses_rows_keeps_what_was_written():
    cache, written = GrowingCache(1), torch.randn(3, 2, 200, 4)
    for start in (0, 70, 71, 140):
        end = {0: 70, 70: 71, 71: 140, 140: 200}[start]
        keys, values = cache.update(written[:, :, start:end], -written[:, :, start:end], 0)
    torch.testing.assert_close(keys, written, rtol=0, atol=0)
    cache.batch_select_indices(torch.tensor([0, 2]))
    new = torch.ones(2, 2, 1, 4)
    keys, values = cache.update(new, new, 0)
    torch.testing.assert_close(keys, torch.cat([written[[0, 2]], new], 2), rtol=0, atol=0)
    torch.testing.assert_close(values[:, :, :200], -written[[0, 2]], rtol=0, atol=0)
    assert cache.get_seq_length() == 201
