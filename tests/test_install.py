"""What has to be installed for what: the scorers and the statistics need the core dependencies only."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from metaapo import PROJECT

CORE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
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


def test_scores_statistics_and_claims_import_neither_training_nor_the_workflow():
    modules = "eval.stats eval.agreement eval.sample_logs eval.exchange reports.parts reports.check metaapo.estimate"
    done = run_alone(f"import {modules.replace(' ', ', ')}; print('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_what_is_not_a_core_dependency_is_really_missing_in_these_tests():
    assert {"torch", "transformers", "snakemake", "matplotlib", "aiohttp"} <= extras_packages()
    assert "No module named 'torch'" in run_alone("import torch").stderr


def test_the_development_environment_installs_every_extra_of_the_workflow():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (itself,) = [Requirement(r) for r in extras["dev"] if r.startswith("metaapo-repro")]
    assert itself.extras >= {"train", "judge", "workflow", "lora", "gguf"}
