"""The real workflow at smoke scale: from data to report; and a part of it with kills, to identical scores.

pytest tests/test_workflow.py --kills 10    kills the whole of config/smoke.yaml ten times instead
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from metaapo import PROJECT
from metaapo.data import read_json
from reports.parts import Verdict

# Rules call `python`; make it the one that runs these tests.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]


def snakemake(folder, *arguments):
    """Run the workflow of a copy of the project in `folder`; returns the finished process."""
    command = [*SNAKEMAKE, *arguments, "--configfile", "config/smoke.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def project_copy(folder):
    ignore = shutil.ignore_patterns(".venv", "results", ".snakemake", ".git", "__pycache__", ".*_cache")
    return shutil.copytree(PROJECT, folder / "project", ignore=ignore)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = project_copy(tmp_path_factory.mktemp("first"))
    process = snakemake(folder)
    assert process.returncode == 0, process.stderr[-4000:]
    return folder


def test_every_promised_file_exists(finished):
    results = finished / "results" / "smoke"
    for name in ("scores.csv", "claims.json", "report/index.html", "report/budget.png", "report/budget.pdf"):
        assert (results / name).stat().st_size > 0, name
    assert {claim["verdict"] for claim in read_json(results / "claims.json")} <= set(Verdict.__args__)


def test_a_second_run_does_nothing(finished):
    process = snakemake(finished)
    assert process.returncode == 0
    assert "Nothing to be done" in process.stderr + process.stdout


def make_reproduce(folder, config, log):
    """Start the README's command in a new process group, in the environment that runs these tests."""
    command = ["make", "reproduce", f"CONFIG={config}", f"BIN={Path(sys.executable).parent}"]
    return subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
    )


def wait_for_jobs(process, log, number):
    """Wait until the run has finished that many jobs; False if it ended earlier."""
    while log.read_text().count("Finished jobid: ") < number:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    return True


def results_of(folder, methods):
    """Bytes of the trained models, answers and judgments of some methods, by file."""
    results = folder / "results" / "smoke"
    patterns = ("runs/{}/**/model.safetensors", "answers/*/{}/**/iter*.json*", "judgments/*/*/{}/**/iter*.json*")
    files = [path for method in methods for pattern in patterns for path in results.glob(pattern.format(method))]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def test_a_run_killed_repeatedly_resumes_to_the_same_bytes(finished, tmp_path, pytestconfig):
    """From scratch: the same command after each SIGKILL of the whole group, with nothing in between."""
    folder = project_copy(tmp_path)
    (folder / ".venv").mkdir()  # newer than pyproject.toml: nothing to install
    chance = random.Random(seed := random.randrange(1000))
    document = yaml.safe_load((PROJECT / "config" / "smoke.yaml").read_text())
    kills, jobs = pytestconfig.getoption("kills"), 80
    if not kills:
        kills, jobs = 3, 16
        document["methods"] = {name: document["methods"][name] for name in ("dpo", "metaapo")}
        document["hardware"] = {"train": {"runs": 2}, "answer": {"runs": 2}}  # how runs share jobs changes no number
    (folder / "config" / "killed.yaml").write_text(yaml.safe_dump(document))
    for number in range(kills + 1):
        path = tmp_path / f"log{number}"
        with path.open("w") as log:
            process = make_reproduce(folder, "config/killed.yaml", log)
        try:
            last = number == kills
            if not last and wait_for_jobs(process, path, chance.randint(1, max(1, jobs // kills))):
                time.sleep(chance.uniform(0, 3))
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert code in ((0,) if last else (0, -signal.SIGKILL)), f"seed {seed}: {path.read_text()[-4000:]}"
    undisturbed, killed = (results_of(copy, document["methods"]) for copy in (finished, folder))
    assert len(undisturbed) == len(killed) > 8 * len(document["methods"])
    assert [name for name in undisturbed if undisturbed[name] != killed[name]] == [], f"seed {seed}"
    for name in ("scores.csv", "claims.json") if pytestconfig.getoption("kills") else ():
        undisturbed, killed = (copy / "results" / "smoke" / name for copy in (finished, folder))
        assert undisturbed.read_bytes() == killed.read_bytes(), f"{name}, seed {seed}"


def test_a_new_seed_trains_only_that_seed(finished):
    process = snakemake(finished, "--config", "seeds=[0,1,2]", "--dry-run")
    planned = {tuple(line.split()) for line in (process.stdout + process.stderr).splitlines()}
    assert ("train_dpo", "1") in planned
    assert ("sft", "1") not in planned


def test_runs_that_share_a_job_have_rules_without_wildcards(tmp_path):
    folder = project_copy(tmp_path)
    hardware = "hardware={train: {runs: 2}, answer: {runs: 2}}"
    process = snakemake(folder, "--config", "seeds=[0,1,2]", hardware, "--dry-run")
    planned = {tuple(line.split()) for line in (process.stdout + process.stderr).splitlines()}
    assert {("train_dpo", "1"), ("train_dpo.2", "1"), ("train_selm", "1")} <= planned
    assert ("train_selm.2", "1") not in planned  # config/smoke.yaml gives it one seed


def test_a_new_world_leaves_the_first_unchanged(finished):
    process = snakemake(finished, "--config", "seeds=[0,1]", "world={seeds: [0, 1]}", "--dry-run")
    planned = {tuple(line.split()) for line in (process.stdout + process.stderr).splitlines()}
    assert {("sft", "1"), ("train_dpo", "1"), ("train_ppo", "1")} & planned == {("sft", "1"), ("train_dpo", "1")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=[1]", "seed: unknown key; did you mean 'seeds'?"),
        ("methods={dop: {}}", "unknown method 'dop'; did you mean 'dpo'?"),
        ("seeds=[]", "seeds: List should have at least 1 item"),
    ],
)
def test_a_mistake_stops_the_workflow_with_one_sentence(tmp_path, change, message):
    command = [*SNAKEMAKE, "--directory", str(tmp_path), "--snakefile", str(PROJECT / "Snakefile"), "--dry-run"]
    configfile = ["--configfile", str(PROJECT / "config" / "smoke.yaml"), "--config", change]
    process = subprocess.run([*command, *configfile], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert process.returncode != 0
    assert message in process.stderr + process.stdout
    assert not (tmp_path / "results").exists()
