"""The reward model's agreement with gold at the end of training, on checkpoints with random weights."""

import sys

import numpy as np
import pytest
from conftest import make_policy, make_reward_model, make_tokenizer
from synthetic_results import FakeMethod, write_results

from eval import agreement_on_policy
from metaapo.data import DataError, read_json
from metaapo.experiment import load, resolve
from metaapo.worlds.on_policy import last_prompts
from metaapo.worlds.tiny.gold import gold


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two seeds of a plain method at two budgets, each with a checkpoint after the last iteration only."""
    monkeypatch.setattr(agreement_on_policy, "PROMPTS", 6)
    monkeypatch.setattr(agreement_on_policy, "SAMPLES", 3)
    capped = FakeMethod(58, (0.5, 1.0), config={"budget": [0.5, 1.0]})
    methods = {"online_dpo": capped, "dpo": FakeMethod(54, (0.0, 0.0))}
    path = write_results(tmp_path, methods, seeds=(0, 1), iterations=2, questions=4, benchmarks=("alpacaeval2",))
    path.write_text(path.read_text() + "sampling: {max_new_tokens: 6}\n")
    root = load(path).results
    folders = [root / f"runs/online_dpo/budget1.0/seed{seed}/iter2/model" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        make_policy(seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    make_reward_model().save_pretrained(root / "world0" / "reward_model")
    make_tokenizer().save_pretrained(root / "world0" / "reward_model")
    return path


def test_every_run_at_the_largest_budget_is_sampled_at_its_end_and_graded_twice(config):
    experiment = load(config)
    found = agreement_on_policy.check_method(experiment, "online_dpo")
    assert [run["run"] for run in found["runs"]] == ["online_dpo/budget1.0/seed0", "online_dpo/budget1.0/seed1"]
    assert all(0 <= run["agreement"] <= 1 for run in found["runs"])
    assert found == agreement_on_policy.check_method(experiment, "online_dpo")  # the samples are seeded
    assert (found["prompts"], found["samples"]) == (6, 3)


def test_a_reward_model_that_ranks_like_gold_agrees_always_and_its_mirror_never(config, monkeypatch):
    sign = {"value": 1}

    def like_gold(model, tokenizer, conversations, responses, batch_size):
        rewards = [[sign["value"] * gold(m, t).reward for t in texts] for m, texts in zip(conversations, responses)]
        return rewards, 0

    monkeypatch.setattr("metaapo.models.rewards.reward_responses", like_gold)
    for value, expected in ((1, 1.0), (-1, 0.0)):
        sign["value"] = value
        found = agreement_on_policy.check_method(load(config), "online_dpo")
        assert {run["agreement"] for run in found["runs"]} == {expected}
        assert found["runs"][0]["proxy"] == pytest.approx(value * found["runs"][0]["gold"])


def test_only_plain_methods_of_a_world_with_gold_are_checked():
    methods = {"dpo": {}, "online_dpo": {}, "metaapo": {}, "random": {}, "selm": {}}
    experiment = resolve({"experiment": "t", "seeds": [0], "methods": methods})
    assert agreement_on_policy.checked_methods(experiment) == ["dpo", "online_dpo"]
    files = [path.rpartition("/")[2] for path in agreement_on_policy.agreement_files(experiment)]
    assert files == ["dpo.json", "online_dpo.json"]


def test_the_command_writes_a_file_and_names_an_unknown_method(config, monkeypatch):
    arguments = ["agreement_on_policy", "--config", str(config), "--method"]
    monkeypatch.setattr(sys, "argv", [*arguments, "online_dpo"])
    agreement_on_policy.main()
    found = read_json(load(config).results / "agreement" / "online_dpo.json")
    assert np.isfinite(found["runs"][0]["agreement"])
    monkeypatch.setattr(sys, "argv", [*arguments, "dpoo"])
    with pytest.raises(SystemExit, match="error: --method dpoo: not in this experiment; its methods: online_dpo"):
        agreement_on_policy.main()


def test_a_world_without_prompts_of_the_last_iteration_is_explained(config):
    experiment = load(config)
    (experiment.world_path(0) / "data" / "pairs.jsonl").write_text('{"iteration": 1, "messages": []}\n')
    with pytest.raises(DataError, match="no prompt of iteration 2; rebuild the world's data"):
        last_prompts(experiment, 0)
