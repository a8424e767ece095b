"""Adding a baseline works as the README says: its code, in a copy of the project, with no file edited."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import copy_project, experiment_document, write_world

from metaapo.data import read_json, read_jsonl


def block_after(text, heading, language):
    """The first fenced block of a language after a heading."""
    return re.search(rf"```{language}\n(.*?)```", text[text.index(heading) :], re.DOTALL).group(1)


@pytest.fixture
def copy(tmp_path):
    """A copy of the project in another folder."""
    return copy_project(tmp_path)


@pytest.fixture
def with_my_method(copy):
    """The copy with the README's module and entry, each in a new file."""
    readme = (copy / "README.md").read_text()
    section = "**Add a baseline.**"
    page = re.search(r"`(baselines/\w+\.py)`", readme[readme.index(section) :]).group(1)
    assert not (copy / page).exists()
    (copy / page).write_text(block_after(readme, section, "python"))
    entry = yaml.safe_load(block_after(readme, section, "yaml"))
    methods = {"dpo": {}} | entry["methods"]
    document = experiment_document("results", methods=methods, iterations=2, seeds=[0])
    (copy / "config" / "mine.yaml").write_text(yaml.safe_dump(document))
    return copy


def run(folder, *command):
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_readmes_method_trains_with_no_existing_file_edited(with_my_method):
    write_world(with_my_method / "results" / "test" / "world0", pairs=16, iterations=2)
    name = "my_method/budget1.0/seed0"
    run(with_my_method, sys.executable, "-m", "metaapo.train", "--config", "config/mine.yaml", "--run", name)
    folder = with_my_method / "results" / "test" / "runs" / name
    assert read_json(folder / "run.json")["module"] == "baselines.my_method"
    for row in read_jsonl(folder / "iter2" / "annotations.jsonl"):
        assert row["sampled"] == (row["offline_score"] < -0.6931)
    for row in read_jsonl(folder / "iter2" / "train.jsonl"):
        assert row["meta_weight"] == 0.5


def test_the_workflow_has_a_rule_for_the_readmes_method(with_my_method):
    snakemake = [sys.executable, "-m", "snakemake", "--configfile", "config/mine.yaml", "--cores", "1", "-n"]
    plan = run(with_my_method, *snakemake)
    assert re.search(r"train_my_method\s+1\b", plan)
    assert re.search(r"train_dpo\s+1\b", plan)


OFFLINE = '''"""DPO under another name, which declares that it samples nothing."""

from baselines.dpo import build
from metaapo.method import Declaration

DECLARATION = Declaration(title="My offline method", family="offline", sampled=0.0)
'''
REPORT = """
import sys
from pathlib import Path

sys.path.insert(0, "tests")
from synthetic_results import BASIC, FakeMethod, write_results

from metaapo.experiment import load
from reports.__main__ import build

added = {"my_method": FakeMethod(80), "my_offline": FakeMethod(50, (0, 0, 0))}
build(load(write_results(Path("made_up"), methods=BASIC | added, seeds=(0, 1), questions=8)))
"""


@pytest.fixture
def with_two_methods(with_my_method):
    """The README's method, which declares nothing, and an offline one, which does."""
    (with_my_method / "baselines" / "my_offline.py").write_text(OFFLINE)
    return with_my_method


def test_new_baselines_are_compared_with_metaapo_and_shown_with_no_existing_file_edited(with_two_methods):
    run(with_two_methods, sys.executable, "-c", REPORT)
    results = with_two_methods / "made_up" / "results" / "synthetic"
    first = next(claim for claim in read_json(results / "claims.json") if claim["id"] == "C1")
    compared = {part["label"] for part in first["parts"] if part["verdict"] != "not tested"}
    assert compared == {f"metaapo - {name}" for name in ("dpo", "my_offline", "online_dpo", "my_method")}
    page = (results / "report" / "index.html").read_text()
    assert "My offline method" in page
    assert "MetaAPO − my method, AlpacaEval 2" in page


def test_the_estimate_prices_a_new_method_by_what_it_declares(with_two_methods):
    code = """
from metaapo.estimate import estimate
from metaapo.experiment import load

plain = load("config/smollm2.yaml")
for name in ("my_method", "online_dpo", "my_offline"):
    entry = plain.methods["online_dpo"].model_copy(update={"module": name})
    print(estimate(plain.model_copy(update={"methods": {name: entry}}))["gpu_hours"]["sample"])
"""
    undeclared, online, offline = map(float, run(with_two_methods, sys.executable, "-c", code).split())
    assert undeclared == online > 0
    assert offline == 0
