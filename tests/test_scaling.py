"""The same workflow for real models: resources reach the cluster, and after prefetch no network is needed."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_policy, make_reward_model, make_tokenizer, random_text

from metaapo import PROJECT
from metaapo.data import read_json, write_json, write_jsonl
from metaapo.experiment import load


def dry_run(*arguments):
    command = [os.path.dirname(sys.executable) + "/snakemake", "-n", "-p", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["smollm2", "llama3.1-8b-released"])
def test_real_experiments_have_a_plan(name):
    done = dry_run("--configfile", f"config/{name}.yaml")
    assert done.returncode == 0, done.stderr
    assert "metaapo.assets.checkpoints" in done.stdout
    assert "metaapo.worlds.tiny.data" not in done.stdout


def test_slurm_gets_the_configured_resources():
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install snakemake-executor-plugin-slurm")
    done = dry_run("--workflow-profile", "profiles/slurm", "--configfile", "config/llama3.1-8b.yaml")
    assert done.returncode == 0, done.stderr
    asked = load(PROJECT / "config" / "llama3.1-8b.yaml").hardware
    for job in (asked.train, asked.answer):
        assert f"mem_mb={job.memory_mb}" in done.stdout
        assert f"runtime={job.minutes}, gpu={job.gpus}, nodes=1" in done.stdout


def test_the_slurm_profile_is_plain_and_limits_no_gpus():
    profile = yaml.safe_load((PROJECT / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert profile["resources"] == ["asking=1"]  # and nothing that would cap the total GPUs of all jobs
    assert profile["default-resources"]["nodes"] == 1


def test_a_run_is_launched_as_configured():
    hardware = load(PROJECT / "config" / "llama3.1-8b.yaml").hardware
    launch = "python -m metaapo.gpus 8 accelerate launch --config_file config/accelerate/fsdp.yaml --num_processes 8 -m"
    assert hardware.launch == f"OMP_NUM_THREADS=8 {launch}"
    assert load(PROJECT / "config" / "default.yaml").hardware.launch == "python -m"


# --- network off ------------------------------------------------------------------------------------------------------

OFFLINE = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse

from eval.answer import answer_run
from metaapo.assets.checkpoints import put_checkpoint
from metaapo.experiment import Run, load
from metaapo.data import write_json
from metaapo.assets.prefetch import main as prefetch
from metaapo.train import train
from metaapo.worlds.ultrafeedback import pairs as ultrafeedback
from metaapo.worlds.ultrafeedback import reward_model as annotator

experiment = load(sys.argv[1])
sys.argv = ["prefetch", "--config", sys.argv[1], "--out", str(experiment.results / "prefetch.json")]
prefetch()
put_checkpoint(experiment, 0, "sft")
ultrafeedback.build(experiment, 0, experiment.world_path(0) / "data")
annotator.make_reward_model(experiment, 0)
write_json(experiment.world_path(0) / "health.json", annotator.checks(experiment, 0))
run = Run(method="metaapo", budget=1.0, seed=0)
train(experiment, run)
answer_run(experiment, run.id)
"""


def fetched(folder, model):
    """A model as prefetch stores it."""
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    write_json(folder / "asset.json", {"path": "org/x", "revision": "main", "commit": "0" * 40})


def test_after_prefetch_the_whole_path_runs_with_the_network_off(tmp_path):
    """Hub names in the configuration, files where prefetch stores them, and no socket may be opened."""
    rng = np.random.default_rng(0)
    assets = tmp_path / "assets"
    fetched(assets / "models" / "org--policy" / "main", make_policy())
    fetched(assets / "models" / "org--reward" / "v1", make_reward_model())
    rows = []
    for i in range(24):
        user = {"content": random_text(rng), "role": "user"}
        answers = [[user, {"content": random_text(rng) + end, "role": "assistant"}] for end in (" cat", " dog")]
        rows.append({"prompt": user["content"], "prompt_id": f"id{i}", "chosen": answers[0], "rejected": answers[1]})
    data = assets / "datasets" / "org--pairs" / "main"
    (data / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), data / "data" / "train_prefs-00000-of-00001.parquet")
    write_json(data / "asset.json", {"path": "org/pairs", "revision": "main", "commit": "0" * 40})
    questions = tmp_path / "questions.jsonl"
    write_jsonl(questions, [{"question_id": 1, "category": "math", "turns": ["list cat", "sort 7 3"]}])
    document = {
        "experiment": "offline",
        "results_dir": str(tmp_path / "results"),
        "assets_dir": str(assets),
        "seeds": [0],
        "iterations": 1,
        "world": {"name": "ultrafeedback", "pairs_per_iteration": 16, "dataset": {"path": "org/pairs"}},
        "sft": {"checkpoint": {"path": "org/policy"}},
        "reward_model": {"checkpoint": {"path": "org/reward", "revision": "v1"}},
        "train": {"batch_size": 4, "micro_batch_size": 4, "max_length": 48},
        "sampling": {"k": 2, "max_new_tokens": 8},
        "methods": {"metaapo": {"t_meta": 2}},
        "evaluation": {
            "benchmarks": ["mtbench"], "judges": ["reward-model"], "questions": {"mtbench": str(questions)},
            "max_new_tokens": 8,
        },
    }  # fmt: skip
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results" / "offline"
    assert {row["key"] for row in read_json(results / "prefetch.json")} == {
        "world.dataset.path", "sft.checkpoint.path", "reward_model.checkpoint.path",
    }  # fmt: skip
    assert (results / "runs" / "metaapo" / "budget1.0" / "seed0" / "run.json").is_file()
    assert (results / "answers" / "mtbench" / "metaapo" / "budget1.0" / "seed0" / "iter1.jsonl").is_file()
