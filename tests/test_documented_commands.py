"""Every shell command in the README and the docs: run, asked for its help, planned, or listed with what it needs.

A command is a line of a bash block, or inline code that starts with a program's name. `CHECKS` says how each program's
commands are checked; what cannot be checked here is in `ELSEWHERE`, with the reason. A command of any other program
fails the first test, so nothing is left out in silence.
"""

import contextlib
import importlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib

import pytest

import metaapo_cli
from metaapo import PROJECT

NAMES = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=PROJECT, capture_output=True, text=True, check=True
).stdout.split()
PAGES = [PROJECT / name for name in NAMES if (PROJECT / name).is_file()]
SCORERS = metaapo_cli.scored_benchmarks()
# Programs whose commands are not run here -> why.
ELSEWHERE = {
    "conda": "needs conda and a network; environment.yml installs the extras that test_install checks",
    "hf": "needs an account of the hub",
    "pre-commit": "needs a network: it fetches the hooks that .pre-commit-config.yaml pins",
    "docker": "needs Docker; test_container checks the recipe",
    "mlflow": "a server that does not end; test_trackers reads its database",
    "wandb": "needs an account and a network; test_trackers reads its files",
    "vllm": "needs a GPU",
    "accelerate": "the rules build this command; test_processes runs it",
    "pytest": "would run these tests inside of themselves",
    "source": "activates an environment in a shell",
    "sed": "edits a file of the tutorial, which test_tutorial runs",
    "echo": "likewise",
    "grep": "likewise",
    "du": "measures an environment whose making needs a network",
    "bash": "a shell",
}


def of_blocks(text):
    """Commands in bash blocks, with continued lines joined and comments removed."""
    for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def of_text(text):
    """Inline code that looks like a command: a known program and at least one word after it."""
    for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        with contextlib.suppress(ValueError):  # code with a lone quotation mark is no command
            words = shlex.split(code.partition(" > ")[0])
            while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                words = words[1:]
            quoted = words[:1] == ["python"] and not re.match(r"-|.*\.py$", " ".join(words[1:2]))
            if len(words) > 1 and words[0] in {*CHECKS, *ELSEWHERE} and words[1] != "=" and not quoted:
                yield words


def program_of(words):
    """The program behind a command, without variables that are set for it."""
    rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    return rest[0] if rest else ""


# --- how each program's commands are checked -----------------------------------------------------------------------


def help_of(module):
    """What a module prints when asked for help; it must exit with status 0."""
    out = io.StringIO()
    before = sys.argv
    sys.argv = [module, "--help"]
    try:
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
    finally:
        sys.argv = before
    assert ended.value.code in (0, None), f"python -m {module} --help"
    return out.getvalue()


HELP = {}


def check_python(words):
    """`python -m`: the module has a help text that knows every option; `python -c` is Python."""
    if words[1] == "-X":  # an option of the interpreter
        words = words[:1] + words[3:]
    if words[1] == "-c":
        compile(words[2], "a command", "exec")
        return
    if words[1] != "-m":
        assert (PROJECT / words[1]).is_file(), f"{words[1]} does not exist"
        return
    module, arguments = words[2], [word.strip("[]") for word in words[3:]]
    if module in ("pip", "..."):
        return
    assert importlib.util.find_spec(module), f"no module {module}"
    if module.split(".")[0] not in ("metaapo", "eval", "reports", "conformance"):
        return
    if arguments[:1] == ["score"] and module.startswith("eval."):
        check_metaapo(["metaapo", "score", module.removeprefix("eval."), *arguments[1:]])
        return
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    if not options:
        return
    HELP.setdefault(module, help_of(module))
    for option in options:
        assert option in HELP[module], f"python -m {module} knows no {option}"


def check_metaapo(words):
    """The parser accepts the command; where a reader fills something in, the command must exist."""
    arguments = words[1:]
    if arguments[0].startswith("-"):
        assert arguments == ["--help"]
        return
    if arguments[0] == "COMMAND":
        return
    if len(arguments) == 1 or arguments[0] == "score" and len(arguments) == 2:
        assert arguments[0] in {"score", *metaapo_cli.DOORS}
        assert len(arguments) == 1 or arguments[1] in SCORERS
        return
    assert metaapo_cli.build(arguments).parse_args(arguments).program


RULES = []


def check_snakemake(words):
    """Snakemake's own parser accepts the options, and every target is a rule or a result."""
    from snakemake.cli import get_argument_parser

    if not RULES:
        listed = subprocess.run(
            [sys.executable, "-m", "snakemake", "--list-rules", "--configfile", "config/smoke.yaml"],
            cwd=PROJECT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        RULES.extend(re.findall(r"^\w+", listed.stdout, re.MULTILINE))
    known, unknown = get_argument_parser().parse_known_args([re.sub(r"<\w+>", "smoke", word) for word in words[1:]])
    assert not unknown, unknown
    for target in known.targets:
        assert target in RULES or target.startswith("results/"), f"no rule {target}"
    for path in known.configfile or []:
        assert path.is_file() or path.name in ("smoke.yaml", "my_experiment.yaml", "first.yaml", "mine.yaml"), path


def check_make(words):
    """make knows the target."""
    targets = [word for word in words[1:] if "=" not in word]
    done = subprocess.run(["make", "-n", *targets], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_pip(words):
    """Extras exist; the packages need a network."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[1] == "install"
    for named in re.findall(r"\.\[([^\]]*)\]", " ".join(words)):
        assert {name.strip() for name in named.split(",")} <= extras.keys(), named


CHECKS = {
    "python": check_python,
    "metaapo": check_metaapo,
    "snakemake": check_snakemake,
    "make": check_make,
    "pip": check_pip,
}


# --- the tests -----------------------------------------------------------------------------------------------------


def commands():
    """(page, words) of every command."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for words in [*of_blocks(text), *of_text(text)]:
            yield str(page.relative_to(PROJECT)), words


def test_every_command_is_of_a_program_that_is_checked_or_listed():
    unknown = [(page, words) for page, words in commands() if program_of(words) not in {*CHECKS, *ELSEWHERE}]
    assert not unknown
    assert len(list(commands())) > 100


def test_the_list_of_what_is_not_run_has_no_superfluous_program():
    code = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    used = {name for name in ELSEWHERE if re.search(rf"(`|^){name}\b", code, re.MULTILINE)}
    assert used >= {"conda", "source", "sed", "docker", "pre-commit"}


@pytest.mark.parametrize("program", CHECKS)
def test_every_command_of_a_program_is_one_that_it_accepts(program):
    found = [(page, words) for page, words in commands() if program_of(words) == program]
    assert found
    for page, words in found:
        start = words.index(program)
        try:
            CHECKS[program](words[start:])
        except (AssertionError, SystemExit) as error:
            pytest.fail(f"{page}: {shlex.join(words)}: {error}")


def test_the_scorers_commands_in_the_readme_run(capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    ran = []
    for words in of_blocks((PROJECT / "README.md").read_text(encoding="utf-8")):
        if words[:2] == ["python", "-m"] and words[3:4] == ["score"]:
            assert metaapo_cli.main(["score", words[2].removeprefix("eval."), *words[4:]]) == 0
            ran.append(json.loads(capsys.readouterr().out)["benchmark"])
    assert ran == SCORERS


def test_a_command_that_does_not_exist_is_found():
    for program, words in (
        ("python", ["python", "-m", "reports.check", "--rnu", "x"]),
        ("metaapo", ["metaapo", "verfiy"]),
        ("snakemake", ["snakemake", "no_such_rule"]),
        ("make", ["make", "no-such-target"]),
        ("pip", ["pip", "install", ".[no-such-extra]"]),
    ):
        with pytest.raises((AssertionError, SystemExit)):
            CHECKS[program](words)
