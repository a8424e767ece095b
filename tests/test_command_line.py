"""The command `metaapo`: a thin door to the programs that also run as `python -m ...`."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import metaapo_cli
from metaapo import PROJECT

SCORERS = metaapo_cli.scored_benchmarks()


def python(*arguments, **more):
    return subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, env=os.environ | more
    )


def test_the_package_installs_the_command():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"metaapo": "metaapo_cli:main"}
    assert project["tool"]["setuptools"]["py-modules"] == ["metaapo_cli"]


def test_the_help_names_every_command_with_an_example_and_imports_nothing_else():
    code = "import sys, metaapo_cli\ntry: metaapo_cli.main(['--help'])\nfinally: print(sorted(sys.modules))"
    printed = python("-c", code).stdout
    for word in ("score", *metaapo_cli.DOORS):
        assert re.search(rf"^    {word} ", printed, re.MULTILINE)
        assert re.search(rf"^  metaapo {word} ", printed, re.MULTILINE)
    assert "register-python-argcomplete metaapo" in printed
    assert "'metaapo_cli'" in printed
    assert not [name for name in ("numpy", "yaml", "pydantic", "torch") if f"'{name}'" in printed]


@pytest.mark.parametrize("word", metaapo_cli.DOORS)
def test_the_example_of_a_command_is_valid_and_leads_to_its_module(word):
    door = metaapo_cli.DOORS[word]
    args = metaapo_cli.build([word]).parse_args([word, *shlex.split(door.example)])
    assert args.program is importlib.import_module(door.module).run


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorers_example_runs_and_prints_json(name, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    example = importlib.import_module(f"eval.{name}.score").EXAMPLE
    assert metaapo_cli.main(["score", name, *shlex.split(example)]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == name


def test_the_status_of_the_program_is_the_status_of_the_command(tmp_path, capsys):
    assert metaapo_cli.main(["score", SCORERS[0], "--annotations", str(tmp_path / "absent.json")]) == 2
    assert metaapo_cli.main(["verify", "--data", str(tmp_path)]) == 2
    with pytest.raises(SystemExit, match="error: .*absent.yaml"):
        metaapo_cli.main(["estimate", "--config", str(tmp_path / "absent.yaml")])


def test_the_estimate_prints_json_on_request(capsys):
    metaapo_cli.main(["estimate", "--config", str(PROJECT / "config" / "smoke.yaml"), "--json"])
    assert json.loads(capsys.readouterr().out)["experiment"] == "smoke"


def test_a_missing_package_is_reported_with_the_extras(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")

    monkeypatch.setattr(metaapo_cli.importlib, "import_module", missing)
    with pytest.raises(SystemExit, match=r"metaapo judge: the package aiohttp is not installed; .*\[judge\]"):
        metaapo_cli.main(["judge"])


@pytest.mark.parametrize(
    ("line", "wanted"), [("metaapo ve", "verify"), ("metaapo score mtb", "mtbench"), ("metaapo verify --da", "--data")]
)
def test_the_shell_completes_commands_benchmarks_and_options(line, wanted, tmp_path):
    pytest.importorskip("argcomplete", reason="pip install argcomplete, or make .venv again")
    answer = tmp_path / "answer"
    python(
        "-m", "metaapo_cli", _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
    )  # fmt: skip
    assert answer.read_text().strip() == wanted
