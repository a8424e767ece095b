"""Tuning: the same number of trials for every method, on prompts that neither training nor evaluation uses."""

import subprocess
import sys

import pytest
from conftest import experiment_document, write_world

from metaapo import PROJECT
from metaapo.config import ConfigError, WorldConfig
from metaapo.data import read_json, write_jsonl
from metaapo.experiment import load, resolve
from metaapo.train import train
from metaapo.worlds.tiny.data import evaluation_sets, preference_pairs
from metaapo.worlds.tiny.tune import Trial, best, check_equal_trials, is_on_edge, table, validation_prompts


def trial(name, lr, win_rate, kl=2.0, cut=0.0, beta=0.2, agreement=0.8, too_fast=False):
    return Trial("dpo", name, lr, beta, win_rate, 0.5, kl, cut, agreement, too_fast)


def test_methods_with_different_numbers_of_trials_are_an_error():
    methods = {"dpo_1": {"module": "dpo"}, "dpo_2": {"module": "dpo"}, "online_dpo": {}}
    experiment = resolve(experiment_document("x", methods=methods))
    with pytest.raises(ConfigError, match=r"same number of trials; found \{'dpo': 2, 'online_dpo': 1\}"):
        check_equal_trials(experiment)


def test_the_best_trial_is_in_bold():
    trials = [trial("dpo_1", 1e-4, 61.5), trial("dpo_2", 2e-4, 71.7)]
    assert best(trials).name == "dpo_2"
    lines = table(trials, resolve(experiment_document("x", methods={"dpo": {}}))).splitlines()
    assert lines[-1].startswith("| dpo | 2.0e-04 | 0.2 | **71.7** |")
    assert lines[-2].startswith("| dpo | 1.0e-04 | 0.2 | 61.5 |")


@pytest.mark.parametrize("fault", [{"kl": 5.1}, {"kl": 0.9}, {"cut": 0.031}, {"agreement": 0.74}, {"too_fast": True}])
def test_a_trial_that_drifts_loops_or_outruns_the_reward_model_is_selected_only_if_all_do(fault):
    bad, good = trial("dpo_1", 4e-4, 71.9, **fault), trial("dpo_2", 2e-4, 61.5)
    assert best([bad, good]) is good
    assert best([bad, trial("dpo_3", 4e-4, 51.2, kl=20.0)]) is bad
    assert "excluded" in table([bad, good], resolve(experiment_document("x", methods={"dpo": {}})))


def test_of_trials_within_a_standard_error_the_one_closest_to_the_sft_policy_is_taken():
    found = [(1e-4, 61.0, 1.8), (2e-4, 61.4, 2.0), (4e-4, 60.8, 1.2)]
    trials = [trial(f"dpo_{i}", lr, win_rate, kl) for i, (lr, win_rate, kl) in enumerate(found, 1)]
    assert best(trials).name == "dpo_1"


def test_a_best_trial_at_an_extreme_of_the_grid_is_reported_unless_an_inner_one_is_as_good():
    grid = [(lr, beta) for lr in (1e-4, 2e-4, 4e-4) for beta in (0.1, 0.2, 0.4)]
    for place in range(9):
        trials = [trial(f"dpo_{i}", lr, 60 if i == place else 50, beta=beta) for i, (lr, beta) in enumerate(grid)]
        assert is_on_edge(trials) == (place != 4)
    assert not is_on_edge([trial(f"dpo_{i}", lr, 50, beta=beta) for i, (lr, beta) in enumerate(grid)])


def test_validation_prompts_are_in_no_training_record_and_no_benchmark(tmp_path):
    experiment = resolve(experiment_document(tmp_path, methods={"dpo": {}}, sft={"demonstrations": 500}))
    data = experiment.world_path(0) / "data"
    pairs = preference_pairs(WorldConfig(pairs_per_iteration=50), 2, 0)
    write_jsonl(data / "pairs.jsonl", pairs)
    drawn = validation_prompts(experiment, 0, 20)
    write_jsonl(data / "pairs.jsonl", [*pairs, *({"messages": messages} for messages in drawn[:5])])
    again = validation_prompts(experiment, 0, 20)
    assert not any(messages in drawn[:5] for messages in again)
    questions = {q["turns"][0] for q in evaluation_sets(WorldConfig())["mixed"]}
    assert not any(message["content"] in questions for messages in again for message in messages)


def test_the_shipped_grid_gives_every_method_the_same_number_of_trials_on_separate_seeds():
    experiment = load(PROJECT / "config" / "tuning.yaml")
    by_module = check_equal_trials(experiment)
    assert set(by_module) == {"dpo", "online_dpo", "selm", "ppo", "metaapo"}
    for module, names in by_module.items():
        settings = {(experiment.train_of(name).lr, experiment.train_of(name).beta) for name in names}
        assert len(settings) == len(names), module
    others = [
        load(path) for path in (PROJECT / "config").glob("*.yaml") if path.stem in ("default", "full", "ablations")
    ]
    assert not any(set(experiment.seeds) & set(other.seeds) for other in others)


def test_the_command_scores_finished_trials(tmp_path, monkeypatch):
    import yaml

    methods = {f"dpo_{i}": {"module": "dpo", "train": {"lr": lr}} for i, lr in ((1, 1e-4), (2, 5e-2))}
    changes = {"methods": methods, "iterations": 1, "seeds": [7], "evaluation": {"max_new_tokens": 16}}
    changes |= {"sft": {"demonstrations": 500}}
    experiment = resolve(experiment_document(tmp_path, **changes))
    write_world(experiment.world_path(0), pairs=8, iterations=1)
    for run in experiment.runs():
        train(experiment, run)
    # Real prompts in place of those of `write_world`, which gold cannot grade
    write_jsonl(
        experiment.world_path(0) / "data" / "pairs.jsonl", preference_pairs(WorldConfig(pairs_per_iteration=8), 1, 0)
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment.dump()))
    command = [sys.executable, "-m", "metaapo.worlds.tiny.tune", "--config", str(tmp_path / "config.yaml")]
    subprocess.run([*command, "--out", str(tmp_path / "tuning.md")], check=True, cwd=PROJECT)
    trials = read_json(tmp_path / "tuning.json")
    assert [t["name"] for t in trials] == ["dpo_1", "dpo_2"]
    assert "| dpo | 5.0e-02 |" in (tmp_path / "tuning.md").read_text()
