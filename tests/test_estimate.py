"""The estimate: parameter counts, what drives the cost, memory measured against predicted."""

import importlib.util
import json
import subprocess
import sys

import pytest
from conftest import make_policy

from metaapo import PROJECT
from metaapo.config import ConfigError
from metaapo.data import DataError
from metaapo.estimate import SHAPES, _turns, estimate, shape_from_config, step_memory, table
from metaapo.experiment import load, resolve

REAL = {
    "experiment": "t",
    "seeds": [0],
    "methods": {"dpo": {}, "online_dpo": {}, "metaapo": {}},
    "world": {"name": "ultrafeedback", "pairs_per_iteration": 1000, "dataset": {"path": "org/pairs"}},
    "sft": {"checkpoint": {"path": "org/Llama-3.1-8B-SFT"}},
    "reward_model": {"checkpoint": {"path": "org/llama3.1-8b-rm"}},
    "evaluation": {"judges": ["llama-3.3-70b"]},
}


@pytest.mark.parametrize(
    ("name", "parameters"), [("Llama-3.1", 8.03e9), ("Qwen2.5-7B", 7.62e9), ("SmolLM2-135M", 134.5e6)]
)
def test_parameters_of_known_models(name, parameters):
    assert SHAPES[name].parameters == pytest.approx(parameters, rel=2e-3)


def test_a_checkpoint_s_own_configuration_counts():
    policy = make_policy()
    counted = sum(p.numel() for n, p in policy.named_parameters() if "norm" not in n)
    assert shape_from_config(policy.config.to_dict()).parameters == counted


def test_larger_settings_are_estimated_to_cost_more():
    base = estimate(resolve(REAL))
    longer = estimate(resolve(REAL | {"estimate": {"response_tokens": 700}}))
    seeds = estimate(resolve(REAL | {"seeds": [0, 1]}))
    assert longer["gpu_hours"]["sample"] > 1.8 * base["gpu_hours"]["sample"]
    assert seeds["gpu_hours"]["train"] == pytest.approx(2 * base["gpu_hours"]["train"], rel=5e-2)
    assert seeds["disk_gb"] > base["disk_gb"]
    assert base["dollars"] == pytest.approx(base["gpu_hours_total"] * 3.0, rel=1e-2)


def test_a_run_s_hours_are_counted_by_stage_as_documented():
    assumed = {
        "utilisation": 1.0,
        "padding": 1.0,
        "prompt_tokens": 100,
        "response_tokens": 200,
        "sampled": {"metaapo": 0.5},
    }
    document = REAL | {"iterations": 1, "methods": {"metaapo": {}}, "sampling": {"k": 8}, "estimate": assumed}
    found = estimate(resolve(document))["gpu_hours_per_run"]["metaapo"]

    def hours(prompts, responses):
        tokens = 100 + responses * 200
        return prompts * tokens * (2 * SHAPES["Llama-3.1"].parameters + 4 * 32 * 4096 * tokens) / 989e12 / 3600

    assert found["score"] == pytest.approx(2 * hours(1000, 2), abs=0.006)
    assert found["annotate"] == pytest.approx(hours(500, 8) + hours(500, 2), abs=0.006)
    assert found["train"] == pytest.approx(3 * (hours(500, 4) + hours(500, 2)), abs=0.006)
    assert table(estimate(resolve(document)), resolve(document)).count("per run: score") == 1


def test_a_method_s_own_number_of_responses_counts():
    def hours(**ppo):
        world = REAL["world"] | {"pairs_per_iteration": 10**6}
        return estimate(resolve(REAL | {"world": world, "methods": {"ppo": ppo}}))["gpu_hours"]["sample"]

    assert hours(responses=3) == pytest.approx(3 * hours(), rel=1e-2)


def test_sharding_the_policy_makes_it_fit():
    assert not estimate(resolve(REAL))["fits"]
    hardware = {"launcher": "config/accelerate/fsdp.yaml", "processes": 8}
    train = {"precision": "bf16", "gradient_checkpointing": True, "micro_batch_size": 2, "batch_size": 128}
    assert estimate(resolve(REAL | {"hardware": hardware, "train": train}))["fits"]


def test_arena_hard_s_second_version_has_more_questions():
    def turns(version):
        return _turns(resolve(REAL | {"evaluation": REAL["evaluation"] | {"arenahard_version": version}}), "arenahard")

    assert (turns("v0.1-2024"), turns("v2.0-2025")) == (500, 750)


def test_a_step_with_the_longest_responses_needs_more_memory_and_decides_whether_it_fits():
    hardware = {"launcher": "config/accelerate/fsdp.yaml", "processes": 8}
    train = {"precision": "bf16", "gradient_checkpointing": True, "micro_batch_size": 2, "batch_size": 128}
    train |= {"max_length": 4096}
    result = estimate(resolve(REAL | {"hardware": hardware, "train": train, "sampling": {"max_new_tokens": 2048}}))
    assert result["step_memory_gb"] == pytest.approx(39.3, abs=0.1)
    assert result["worst_step_memory_gb"] == pytest.approx(60.3, abs=0.1)
    assert result["fits"]
    larger = estimate(resolve(REAL | {"hardware": hardware, "train": train, "sampling": {"max_new_tokens": 4096}}))
    assert larger["step_memory_gb"] == result["step_memory_gb"]
    assert not larger["fits"]


def test_judging_is_priced():
    def cost(judge):
        return estimate(resolve(REAL | {"evaluation": {"judges": [judge], "arenahard_version": "v0.1-2024"}}))

    own, paid = cost("llama-3.3-70b"), cost("gpt-4.1")
    assert own["gpu_hours"]["judge"] > 0 == own["dollars_for_judges"]
    models = 3 * 3 + 1  # methods x iterations, and the SFT policy
    requests = {"alpacaeval2": 805, "arenahard": 2 * 500, "mtbench": 2 * 80}
    read = models * (1805 * (200 + 2 * 350 + 500) + 160 * (200 + 350 + 500))
    dollars = (read * 2.0 + models * sum(requests.values()) * 300 * 8.0) / 1e6
    assert paid["dollars_for_judges"] == pytest.approx(dollars, abs=0.01)
    assert paid["gpu_hours"]["judge"] == 0


def test_an_unknown_gpu_or_model_is_reported():
    with pytest.raises(ConfigError, match=r"estimate\.gpu: unknown 'H999'; known: H100-80GB"):
        estimate(resolve(REAL | {"estimate": {"gpu": "H999"}}))
    with pytest.raises(DataError, match=r"sft\.checkpoint\.path: the shape of org/odd is not known before"):
        estimate(resolve(REAL | {"sft": {"checkpoint": {"path": "org/odd"}}}))


@pytest.mark.parametrize("name", ["default", "smollm2", "smollm2-smoke", "llama3.1-8b", "qwen2.5-7b"])
def test_shipped_experiments_have_an_estimate(name):
    experiment = load(PROJECT / "config" / f"{name}.yaml")
    result = estimate(experiment)
    assert result["fits"]
    assert f"{result['gpu_hours_total']:.1f} GPU-hours" in table(result, experiment)


def test_evaluation_only_trains_nothing():
    result = estimate(load(PROJECT / "config" / "llama3.1-8b-released.yaml"))
    assert result["gpu_hours"]["train"] == result["gpu_hours"]["sample"] == 0
    assert result["gpu_hours"]["answer"] > 0


def test_checkpointing_and_bf16_need_less():
    shape = SHAPES["SmolLM2-135M"]
    plain = step_memory(shape, 8000, 4000)
    assert step_memory(shape, 8000, 4000, checkpointing=True) < plain
    assert step_memory(shape, 8000, 4000, bf16=True) < plain


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, PROJECT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("case", benchmark("step_memory").CASES)
def test_peak_memory_of_a_step_is_predicted_within_15_percent(case):
    row = benchmark("step_memory").measure(case)
    assert row["predicted"] == pytest.approx(row["measured"], rel=0.15)


@pytest.mark.slow
def test_a_step_is_half_as_fast_again_as_trl_s_at_the_same_loss():
    command = [sys.executable, str(PROJECT / "benchmarks" / "dpo_throughput.py"), "--rounds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["largest_relative_loss_gap"] < 1e-4
    assert result["ratio"] >= 1.5
