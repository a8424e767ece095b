"""Local jobs take their own GPUs, several nodes start through SLURM, and impossible layouts are refused."""

import json
import os
import subprocess
import sys
import time

import pytest

from metaapo import PROJECT
from metaapo.config import ConfigError
from metaapo.experiment import resolve
from metaapo.gpus import take
from metaapo.nodes import launch_command, srun_command

DOCUMENT = {"experiment": "t", "seeds": [0], "methods": {"dpo": {}}}
PRINT = "import json, os, sys, time; print(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'], time.time()])); "
PRINT += "sys.stdout.flush(); time.sleep(float(sys.argv[1])); print(time.time())"


def start(folder, gpus, seconds, **variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment |= {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "TMPDIR": str(folder), **variables}
    command = [sys.executable, "-m", "metaapo.gpus", str(gpus), sys.executable, "-c", PRINT, str(seconds)]
    return subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_jobs_that_run_at_the_same_time_never_share_a_gpu(tmp_path):
    jobs = [start(tmp_path, gpus, 0.5) for gpus in (1, 2, 3, 1, 4)]
    held = []
    for job in jobs:
        out, err = job.communicate(timeout=60)
        assert job.returncode == 0, err
        (gpus, begin), end = json.loads(out.splitlines()[0]), float(out.splitlines()[1])
        held += [(gpu, begin, end) for gpu in gpus.split(",")]
    assert len(held) == 1 + 2 + 3 + 1 + 4
    for number, (gpu, begin, end) in enumerate(held):
        for other, start_of_other, end_of_other in held[number + 1 :]:
            assert gpu != other or end <= start_of_other or end_of_other <= begin


def test_a_killed_job_frees_its_gpus(tmp_path):
    job = start(tmp_path, 4, 60)
    assert json.loads(job.stdout.readline())[0] == "0,1,2,3"
    job.kill()
    job.wait()
    following = start(tmp_path, 4, 0)
    assert following.communicate(timeout=30)[0].startswith('["0,1,2,3"')


def test_a_scheduler_s_gpus_are_left_as_they_are(tmp_path):
    job = start(tmp_path, 1, 0, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="2,3")
    assert json.loads(job.communicate(timeout=30)[0].splitlines()[0])[0] == "2,3"


def test_a_job_that_needs_more_gpus_than_there_are_is_refused_at_once(tmp_path):
    job = start(tmp_path, 5, 0)
    assert "the job needs 5 GPUs (hardware), but 4 are visible; request fewer" in job.communicate(timeout=30)[1]
    assert job.returncode == 1


def test_gpus_are_taken_all_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert take(["0", "1", "2"], 2) == ["0", "1"]
    begin = time.monotonic()
    assert take(["2"], 1) == ["2"]
    assert time.monotonic() - begin < 0.5


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_jobs_without_gpus_are_started_as_ever():
    experiment = resolve(DOCUMENT)
    assert experiment.hardware.launch == "python -m"
    assert experiment.hardware.answer.on_gpus == ""


def test_processes_share_the_job_s_cores():
    """Snakemake exports all of a job's threads as OMP_NUM_THREADS."""
    hardware = {"processes": 8, "launcher": "config/accelerate/fsdp.yaml", "train": {"cpus": 64, "gpus": 8}}
    launch = resolve(DOCUMENT | {"hardware": hardware}).hardware.launch
    assert launch.startswith("OMP_NUM_THREADS=8 python -m metaapo.gpus 8 accelerate launch --config_file ")
    two = resolve(DOCUMENT | {"hardware": hardware | {"processes": 16, "nodes": 2}}).hardware.launch
    assert two.startswith("OMP_NUM_THREADS=8 python -m metaapo.nodes 2 --config_file ")


def test_slurm_s_environment_gives_each_node_its_rank_and_the_address():
    arguments = ["--num_processes", "16", "-m", "metaapo.train", "--run", "a"]
    command = srun_command("41234", 2, "node7", arguments)
    assert {"--overlap", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"} < set(command)
    environment = {"SLURM_JOB_ID": "41234", "SLURM_PROCID": "1"}
    assert " ".join(launch_command(environment, 2, "node7", arguments)) == (
        "accelerate launch --num_machines 2 --machine_rank 1 --main_process_ip node7 --main_process_port 21234 "
        "--num_processes 16 -m metaapo.train --run a"
    )


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"processes": 3}, r"tensor_parallel 2 does not divide the 3 training processes of a node .*overlap"),
        ({"processes": 6, "nodes": 2}, r"tensor_parallel 2 does not divide the 3 training processes of a node"),
        ({"answer": {"gpus": 1}}, r"tensor_parallel is 2, but hardware\.answer\.gpus 1; change either"),
        ({"processes": 3, "nodes": 2}, r"processes 3 is not a multiple of nodes 2; change either"),
    ],
)
def test_layouts_in_which_engines_would_overlap_are_refused(hardware, message):
    sampling = {"backend": "vllm", "vllm": {"tensor_parallel": 2}}
    with pytest.raises(ConfigError, match=message):
        resolve(DOCUMENT | {"sampling": sampling, "hardware": hardware})


def test_engines_of_two_gpus_take_disjoint_ones(monkeypatch):
    from metaapo.config import VLLMConfig
    from metaapo.models import vllm_backend

    monkeypatch.setattr(vllm_backend, "_visible_gpus", lambda: list("01234567"))
    taken = []
    for rank in range(0, 8, 2):  # the processes that start one, by Processes.share(every=2)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        taken += vllm_backend.environment(VLLMConfig(tensor_parallel=2))["CUDA_VISIBLE_DEVICES"].split(",")
    assert taken == list("01234567")
