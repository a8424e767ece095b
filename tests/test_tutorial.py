"""The tutorial does what it says: its files are written and its commands are run, one after the other."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import copy_project

from eval.judges.config import read_judges
from metaapo import PROJECT
from metaapo.data import read_json
from metaapo.experiment import resolve

TUTORIAL = PROJECT / "docs" / "tutorial.md"
INSTALLATION = ("make .venv", "source .venv/bin/activate")  # done before the tests
BLOCK = re.compile(r"(?:[Ww]rite `(?P<file>[^`]+)`(?:(?!```).)*?)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


def steps():
    """(section, file to write or None, text) of every block, in the order of the page."""
    for section in re.split(r"^## ", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for block in BLOCK.finditer(section):
            yield title, block["file"] if block["language"] != "bash" else None, block["text"]


def test_every_block_is_a_command_or_a_file_that_the_text_names():
    files = [file for _, file, _ in steps() if file]
    assert files == ["config/first.yaml", "baselines/my_method.py", "config/my_judges.yaml", "config/mine.yaml"]
    assert len(files) == len(re.findall(r"^```(?:yaml|python)$", TUTORIAL.read_text(), re.MULTILINE))
    assert {title for title, _, _ in steps()} == {
        "Install", "First verdict", "Your own baseline", "Your own judge", "Your own data",
    }  # fmt: skip


def test_the_baseline_is_the_readmes():
    (method,) = [text for _, file, text in steps() if file and file.startswith("baselines/")]
    assert method in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_its_experiments_and_judges_are_valid(tmp_path):
    written = {file: text for _, file, text in steps() if file}
    (tmp_path / "judges.yaml").write_text(written["config/my_judges.yaml"])
    assert read_judges(tmp_path / "judges.yaml")["decided"].kind == "reward-model"
    (added,) = re.findall(r"echo '(evaluation: .*)' >>", TUTORIAL.read_text())
    evaluation = yaml.safe_load(added)["evaluation"]
    first = resolve(yaml.safe_load(written["config/first.yaml"]) | {"evaluation": evaluation})
    assert first.judges == ["gold", "decided"]
    assert evaluation["judges_file"] in written
    mine = resolve(yaml.safe_load(written["config/mine.yaml"]))
    assert mine.sft.checkpoint.path.startswith(str(first.results))


def run(command, folder):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_to_its_last_command(tmp_path, capsys):
    folder = copy_project(tmp_path / "clone")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    printed, seconds = {}, {}
    for title, file, text in steps():
        if file:
            (folder / file).write_text(text, encoding="utf-8")
            continue
        started = time.monotonic()
        for command in text.splitlines():
            if command not in INSTALLATION:
                printed[title, command] = run(command, folder)
        seconds[title] = seconds.get(title, 0) + time.monotonic() - started
    with capsys.disabled():
        print("".join(f"\n{title}: {spent / 60:.1f} min" for title, spent in seconds.items()))
    results = folder / "results"
    assert all((results / name / "report" / "index.html").is_file() for name in ("first", "mine"))
    verdicts = [out for (_, command), out in printed.items() if command.startswith("python -c")]
    assert [line.split()[0] for line in verdicts[0].splitlines()] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert "my_method" in str(read_json(results / "first" / "claims.json"))
    trained = list((results / "first" / "logs").rglob("*my_method*"))
    assert trained
    judges = [out for (_, command), out in printed.items() if command.startswith("grep -c")]
    assert int(judges[0]) > 0
