"""The real workflow at smoke scale: from data to report, twice, with identical scores; mistakes stop it early."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaapo import PROJECT
from metaapo.data import read_json

# Rules call `python`: the one that runs these tests.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]


def snakemake(folder, *arguments):
    """Run the workflow of a copy of the project in `folder`; returns the finished process."""
    command = [*SNAKEMAKE, *arguments, "--configfile", "config/smoke.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def project_copy(folder):
    ignore = shutil.ignore_patterns(".venv", "results", ".snakemake", ".git", "*cache*")
    return shutil.copytree(PROJECT, folder / "project", ignore=ignore)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = project_copy(tmp_path_factory.mktemp("first"))
    process = snakemake(folder)
    assert process.returncode == 0, process.stderr[-4000:]
    return folder


def test_everything_promised_is_there(finished):
    results = finished / "results" / "smoke"
    for name in ("scores.csv", "claims.json", "report/index.html", "report/budget.png", "report/budget.pdf"):
        assert (results / name).stat().st_size > 0, name
    assert {claim["verdict"] for claim in read_json(results / "claims.json")} <= {
        "supported", "contradicted", "undecided",
    }  # fmt: skip


def test_a_second_run_does_nothing(finished):
    process = snakemake(finished)
    assert process.returncode == 0
    assert "Nothing to be done" in process.stderr + process.stdout


def test_two_runs_from_scratch_give_identical_scores(finished, tmp_path):
    folder = project_copy(tmp_path)
    process = snakemake(folder, "--until", "report")
    assert process.returncode == 0, process.stderr[-4000:]
    first, second = (f / "results" / "smoke" / "scores.csv" for f in (finished, folder))
    assert first.read_bytes() == second.read_bytes()


def test_a_new_seed_trains_only_that_seed(finished):
    process = snakemake(finished, "--config", "seeds=[0,1,2]", "--dry-run")
    planned = {tuple(line.split()) for line in (process.stdout + process.stderr).splitlines()}
    assert ("train_dpo", "1") in planned
    assert ("sft", "1") not in planned


def test_a_new_world_leaves_the_first_alone(finished):
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
