"""A real SLURM with two made-up nodes of 8 GPUs (tests/slurm_on_localhost.sh): what is submitted, and where it runs.

SLURM_CONF=/tmp/slurm/slurm.conf pytest --run-slow tests/test_slurm.py
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metaapo import PROJECT
from metaapo.experiment import Run, load, resolve

pytestmark = pytest.mark.slow

# Stands for accelerate: notes what SLURM granted, then writes what the rule has to write.
LAUNCHER = """#!/bin/bash
scontrol show job $SLURM_JOB_ID > {folder}/job-$SLURM_PROCID
env > {folder}/env-$SLURM_PROCID
echo "$@" > {folder}/arguments-$SLURM_PROCID
mkdir -p {run} && echo '{{}}' > {run}/run.json
"""


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install snakemake-executor-plugin-slurm")
    if not shutil.which("sinfo"):
        pytest.skip("no SLURM here; see tests/slurm_on_localhost.sh")
    shown = subprocess.run(["sinfo", "-N", "-h", "-o", "%N %T %G"], capture_output=True, text=True, check=False)
    if shown.stdout.split()[1::3] != ["idle", "idle"]:
        pytest.skip(f"expected two idle nodes, found {shown.stdout or shown.stderr}")


def through_slurm(config, *arguments, tools=()):
    """Run Snakemake with the shipped profile; what it printed."""
    paths = ":".join([*tools, str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["snakemake", "--workflow-profile", "profiles/slurm", "--configfile", str(config), "--retries", "0"]
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
    command += ["--seconds-between-status-checks", "5", "--latency-wait", "5", *arguments]
    environment = os.environ | {"PATH": paths, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def submitted(folder, changes):
    """Run the rule that trains DPO in the 8B experiment as a SLURM job, with a launcher that only takes notes."""
    document = load(PROJECT / "config" / "llama3.1-8b.yaml").dump() | {"results_dir": str(folder / "results")}
    document["hardware"] |= changes
    experiment = resolve(document)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.dump()))
    for file in ("data/pairs.jsonl", "sft/model.safetensors", "reward_model/model.safetensors", "health.json"):
        path = experiment.world_path(0) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (experiment.results / "plan.lock").touch()
    run = experiment.run_path(Run(method="dpo", budget=1.0, seed=0))
    tools = folder / "tools"
    tools.mkdir()
    (tools / "accelerate").write_text(LAUNCHER.format(folder=folder, run=run))
    (tools / "accelerate").chmod(0o755)
    through_slurm(config, "--rerun-triggers", "mtime", "--", str(run / "run.json"), tools=[str(tools)])
    return experiment


def granted(folder, process=0):
    job = dict(re.findall(r"(\S+?)=(\S*)", (folder / f"job-{process}").read_text()))
    lines = (folder / f"env-{process}").read_text().splitlines()
    return job, dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_training_job_of_the_8b_experiment_gets_one_whole_node(cluster, tmp_path):
    hardware = submitted(tmp_path, {}).hardware
    job, environment = granted(tmp_path)
    assert job["NumNodes"] == "1"
    assert job["TresPerJob"] == "gres:gpu:8"
    assert job["NumCPUs"] == str(hardware.train.cpus)
    assert job["MinMemoryNode"] in (f"{hardware.train.memory_mb}M", f"{hardware.train.memory_mb / 1024:.0f}G")
    assert job["TimeLimit"] == "3-00:00:00"
    assert environment["OMP_NUM_THREADS"] == str(hardware.train.cpus // hardware.processes)
    assert len(environment.get("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7").split(",")) == 8


def test_a_job_on_two_nodes_starts_one_launcher_on_each(cluster, tmp_path):
    submitted(tmp_path, {"nodes": 2, "processes": 16})
    job, _ = granted(tmp_path)
    assert job["NumNodes"] == "2"
    assert job["TresPerJob"] == "gres:gpu:16"
    arguments = [(tmp_path / f"arguments-{process}").read_text() for process in (0, 1)]
    ranks = [re.search(r"--machine_rank (\d)", text)[1] for text in arguments]
    assert ranks == ["0", "1"]
    assert len({re.search(r"--main_process_ip (\S+) --main_process_port (\d+)", text)[0] for text in arguments}) == 1
    assert "--num_machines 2" in arguments[0]
    assert "--num_processes 16" in arguments[0]


def test_the_whole_smoke_experiment_runs_from_nothing_to_its_report(cluster, tmp_path):
    """All jobs but the local ones are SLURM's.

    Two run at a time, since the made-up nodes share two cores; runs share jobs, since Snakemake starts twice for each.
    """
    document = load(PROJECT / "config" / "smoke.yaml").dump() | {"results_dir": str(tmp_path / "results")}
    document["hardware"]["train"]["runs"] = 2
    document["hardware"]["answer"]["runs"] = 64
    experiment = resolve(document)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.dump()))
    said = through_slurm(config, "--jobs", "2")
    results = experiment.results
    assert (results / "report" / "index.html").is_file()
    assert (results / "health.ok").is_file()
    for run in experiment.runs():
        assert (results / "runs" / run.id / "run.json").is_file()
    total = int(re.search(r"^total +(\d+)$", said, re.MULTILINE)[1])
    assert total > 20
    local = len(re.findall(r"^localrule \w+:$", said, re.MULTILINE))
    jobs = set(re.findall(r"submitted with SLURM jobid (\d+)", said))
    assert len(jobs) + local == total
