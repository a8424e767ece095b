"""What has to be installed for what: the scorers and the statistics need the core dependencies only."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import metaapo_cli
from metaapo import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
CORE, EXTRAS = METADATA["dependencies"], METADATA["optional-dependencies"]
EXAMPLES = PROJECT / "examples"
SCORERS = {
    "eval.alpacaeval2": ["--annotations", EXAMPLES / "annotations.json"],
    "eval.arenahard": [
        "--judgments", EXAMPLES / "arenahard_judgments.jsonl", "--answers", EXAMPLES / "arenahard_answers.jsonl",
        "--baseline", "baseline", "--version", "v2.0-2025",
    ],
    "eval.mtbench": ["--judgments", EXAMPLES / "mtbench_judgments.jsonl", "--questions", EXAMPLES / "mtbench.jsonl"],
}  # fmt: skip
# Run code as if the packages named in MISSING were not installed.
AS_IF_ALONE = """
import os, runpy, sys
missing = set(os.environ["MISSING"].split())

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements):
    """Distributions that an installer fetches for requirements without extras."""
    found, waiting = set(), list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = normalised(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            waiting += requires(name) or []
        except PackageNotFoundError:
            continue  # for another platform
    return found


def extras_packages():
    """Installed packages that the core dependencies do not bring along."""
    core = closure([*CORE, "setuptools"]) | {"metaapo-repro"}
    return {name for name, of in packages_distributions().items() if not core & {normalised(dist) for dist in of}}


def run_alone(code):
    environment = os.environ | {"MISSING": " ".join(extras_packages()), "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, "-c", AS_IF_ALONE + code], cwd=PROJECT, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("module", SCORERS)
def test_a_scorer_works_where_only_the_core_dependencies_are_installed(module):
    arguments = [module, "score", *map(str, SCORERS[module])]
    done = run_alone(f"sys.argv = {arguments!r}; runpy.run_module({module!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["benchmark"] == module.removeprefix("eval.")


def test_scores_and_statistics_import_neither_training_nor_the_workflow():
    modules = "eval.stats eval.agreement eval.sample_logs eval.exchange eval.verify metaapo.estimate"
    done = run_alone(f"import {modules.replace(' ', ', ')}; print('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_what_is_not_a_core_dependency_is_really_missing_in_these_tests():
    assert {"torch", "transformers", "snakemake", "matplotlib", "pandas", "aiohttp"} <= extras_packages()
    assert "No module named 'torch'" in run_alone("import torch").stderr


def test_the_development_environment_installs_every_extra_of_the_workflow():
    (itself,) = [Requirement(r) for r in EXTRAS["dev"] if r.startswith("metaapo-repro")]
    assert itself.extras >= {"train", "judge", "workflow", "lora", "gguf"}


def pins():
    """Package -> pinned version."""
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    return {normalised(name): version for name, _, version in (line.partition("==") for line in lines) if version}


@pytest.mark.parametrize("part", ["core", *EXTRAS])
def test_every_pin_is_a_version_that_the_project_accepts(part):
    for text in CORE if part == "core" else EXTRAS[part]:
        wanted = Requirement(text)
        if wanted.name == "metaapo-repro":
            assert wanted.extras <= EXTRAS.keys()
        else:
            assert wanted.specifier.contains(pins()[normalised(wanted.name)]), text


def conda(name):
    """(version of Python, what pip installs) of a conda environment."""
    document = yaml.safe_load((PROJECT / name).read_text())
    assert document["channels"] == ["conda-forge"]
    python, pip, installed = document["dependencies"]
    assert pip == "pip"
    return python.removeprefix("python="), installed["pip"]


def test_conda_installs_what_make_installs():
    python, installed = conda("environment.yml")
    assert SpecifierSet(METADATA["requires-python"]).contains(python)
    assert f"Python {python}" in (PROJECT / "constraints.txt").read_text().splitlines()[0]
    recipe = (PROJECT / "Makefile").read_text()
    assert installed == ["-c constraints.txt", "-e .[dev]"]
    assert "-c constraints.txt -e '.[dev]'" in recipe


def test_vllms_environment_is_the_one_in_the_docs():
    _, installed = conda("workflow/envs/vllm.yaml")
    assert f"`pip install {installed[0]}`" in (PROJECT / "docs" / "scaling.md").read_text()
    assert not [text for extra in EXTRAS.values() for text in extra if text.startswith("vllm")]


def test_every_door_names_extras_that_exist():
    assert {name for door in metaapo_cli.DOORS.values() for name in door.extra.split(",")} <= EXTRAS.keys()
