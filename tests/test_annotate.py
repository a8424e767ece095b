"""Annotation: the best and the worst response, pairs without information, each text scored once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaapo.data import DataError
from metaapo.loop.annotate import best_worst, scores_of
from metaapo.models.generate import Response
from metaapo.models.load import encode_prompt, encode_responses
from metaapo.models.rewards import reward_responses, with_errors

CONVERSATIONS = [[{"role": "user", "content": "list animals"}], [{"role": "user", "content": "sort 7 3 9 1"}]]


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.floats(-5, 5)), min_size=2, max_size=8))
def test_chosen_is_best_and_rejected_is_worst(candidates):
    texts, rewards = zip(*candidates)
    pair = best_worst(texts, rewards)
    assert rewards[pair.chosen] == max(rewards)
    assert rewards[pair.rejected] == min(rewards)
    assert (pair.outcome == "pair") == (max(rewards) > min(rewards) and texts[pair.chosen] != texts[pair.rejected])


def test_a_cut_response_scores_less_than_its_reward_and_offline_candidates_are_complete():
    responses = [Response("a", [], [], finished=False), Response("b", [], [], finished=True)]
    assert scores_of([3.0, 2.5, 2.0], responses, cut_penalty=1.0) == [2.0, 2.5, 2.0]
    assert scores_of([3.0, 2.5, 2.0], responses, cut_penalty=0.0) == [3.0, 2.5, 2.0]


def test_a_noisy_annotator_errs_alike_on_a_response_whenever_it_is_asked():
    texts = [[f"cat {i}" for i in range(500)], ["dog", "dog"]]
    rewards = [[1.0] * 500, [2.0, 2.0]]
    noisy = with_errors(rewards, CONVERSATIONS, texts, 3.0)
    assert noisy == with_errors(rewards, CONVERSATIONS, texts, 3.0)
    assert noisy[1][0] == noisy[1][1] != 2.0  # one text, one error
    assert with_errors([[1.0]], CONVERSATIONS[:1], [["cat 7"]], 3.0) == [[noisy[0][7]]]  # whatever else is asked
    assert with_errors([[1.0]], CONVERSATIONS[1:], [["cat 7"]], 3.0) != [[noisy[0][7]]]  # another prompt, another error
    assert abs(sum(noisy[0]) / 500 - 1.0) < 0.5
    assert 2.6 < (sum((value - 1.0) ** 2 for value in noisy[0]) / 500) ** 0.5 < 3.4
    assert with_errors(rewards, CONVERSATIONS, texts, 0.0) == rewards


def test_ties_and_identical_texts_make_no_pair():
    assert best_worst(["a", "b"], [1.0, 1.0]).outcome == "tie"
    assert best_worst(["a", "a"], [1.0, 1.0]).outcome == "identical"


@pytest.mark.parametrize("rewards", [[1.0], [1.0, float("nan")]])
def test_too_few_candidates_or_a_broken_reward_is_an_error(rewards):
    with pytest.raises(DataError):
        best_worst(["a", "b"][: len(rewards)], rewards)


def test_batching_changes_no_reward_and_equal_texts_are_scored_once(reward_model, tokenizer):
    responses = [["cat dog", "cat", "cat dog"], ["1 3 7 9", "9", "1 3"]]
    small, calls = reward_responses(reward_model, tokenizer, CONVERSATIONS, responses, batch_size=1)
    large, _ = reward_responses(reward_model, tokenizer, CONVERSATIONS, responses, batch_size=8)
    assert calls == 5
    assert small[0][0] == small[0][2]
    assert sum(small, []) == pytest.approx(sum(large, []), rel=1e-4, abs=1e-5)


def test_rewards_equal_the_classification_head_of_transformers(reward_model, tokenizer):
    import torch

    responses = [["cat dog", "cat"], ["1 3 7 9", "9"]]
    ours, _ = reward_responses(reward_model, tokenizer, CONVERSATIONS, responses)
    for conversation, texts, rewards in zip(CONVERSATIONS, responses, ours):
        for text, reward in zip(texts, rewards):
            ids = [*encode_prompt(tokenizer, conversation), *encode_responses(tokenizer, [text])[0]]
            theirs = reward_model(input_ids=torch.tensor([ids])).logits.item()
            assert reward == pytest.approx(theirs, rel=1e-4, abs=1e-5)
