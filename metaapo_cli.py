"""The command `metaapo`: one door to the programs that also run as `python -m ...`.

The module stands beside the packages because it opens doors to training, evaluation and reports alike, which do not all
know each other. A program is imported only when its word is given, so that `metaapo --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from metaapo import PROJECT
from metaapo.benchmarks import known_benchmarks


@dataclass(frozen=True)
class Door:
    """A program behind a word.

    Attributes:
        module: offers `add_arguments(parser)` and `run(arguments)`, which returns the exit status or None for 0.
        summary: what it does, in a few words.
        example: arguments that show its use.
        extra: the extra that installs what it needs beyond the core.
    """

    module: str
    summary: str
    example: str
    extra: str = "train"


DOORS = {
    "judge": Door(
        "eval.judge",
        "judge the answers of an experiment, or say what that costs",
        "--config config/default.yaml --judge gold --quote",
        extra="judge",
    ),
    "compare": Door(
        "eval.sample_logs",
        "compare two models sample by sample, from the logs of several tools; prints JSON",
        "--a logs/mine.json --b logs/other.json",
    ),
    "check": Door(
        "reports.check",
        "does a reproduction agree with the reference run? prints JSON",
        "--run results/default --reference docs/results/default",
        extra="workflow",
    ),
    "verify": Door(
        "eval.verify", "score published annotations; our numbers beside the published ones", "--data ../shared/evaldata"
    ),
    "estimate": Door(
        "metaapo.estimate", "GPU-hours, dollars, disk and memory of an experiment", "--config config/llama3.1-8b.yaml"
    ),
    "doctor": Door(
        "eval.doctor", "what would stop an experiment, before anything is spent", "--config config/llama3.1-8b.yaml"
    ),
    "export": Door(
        "eval.exchange",
        "export scores and judgments in the Every Eval Ever schema",
        "--config results/default/config.yaml --judge gold",
    ),
    "card": Door(
        "reports.model_card",
        "write the model card of a trained policy, with its annotations and the verdicts",
        "--run results/default --policy metaapo/budget1.0/seed0 --out README.md",
        extra="train,workflow",
    ),
    "track": Door(
        "reports.trackers",
        "send finished runs to MLflow or to W&B's offline format",
        "--run results/default --to mlflow --out mlflow.db",
    ),
    "crate": Door(
        "reports.crate",
        "pack a finished experiment as a Workflow Run RO-Crate",
        "--run results/default --out default-crate",
    ),
}
SCORE = "score files that others made; prints JSON"
SCORE_EXAMPLE = "score alpacaeval2 --annotations examples/annotations.json"
COMPLETION = 'Shell completion: add `eval "$(register-python-argcomplete metaapo)"` to your shell\'s start-up file.'


def scored_benchmarks() -> list[str]:
    """The benchmarks whose scorer has a command line, sorted."""
    return [name for name in known_benchmarks() if (PROJECT / "eval" / name / "__main__.py").is_file()]


def build(words: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser for a command line; only the program that it names is imported.

    Args:
        words: the command line after `metaapo`, or its beginning.
    """
    examples = [f"  metaapo {word}" for word in (SCORE_EXAMPLE, *(f"{w} {d.example}" for w, d in DOORS.items()))]
    parser = argparse.ArgumentParser(
        prog="metaapo",
        description="Score, judge, compare and check; to train and report, use snakemake.",
        epilog="\n".join(["examples (metaapo COMMAND --help shows all options):", *examples, "", COMPLETION]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    score = commands.add_parser("score", help=SCORE, description=SCORE)
    benchmarks = score.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name in scored_benchmarks():
        chosen = f"eval.{name}.score" if list(words[:2]) == ["score", name] else None
        _add(benchmarks, name, f"by the protocol of eval/{name}", chosen)
    for word, door in DOORS.items():
        _add(commands, word, door.summary, door.module if words[:1] == [word] else None, door.example)
    return parser


def _add(
    commands: argparse._SubParsersAction, word: str, summary: str, module_name: str | None, example: str = ""
) -> None:
    """Add a command; its options too if its module is given."""
    command = commands.add_parser(word, help=summary, description=summary)
    if module_name is None:
        return
    module = importlib.import_module(module_name)
    command.epilog = f"example: {command.prog} {example or module.EXAMPLE}"
    module.add_arguments(command)
    command.set_defaults(program=module.run)  # not `run`, which is an option of two programs


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status of the program behind the word."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(build(os.environ.get("COMP_LINE", "").split()[1:]))
        args = build(words).parse_args(words)
        return args.program(args) or 0
    except ModuleNotFoundError as error:
        extra = DOORS[words[0]].extra if words[0] in DOORS else "dev"
        sys.exit(
            f"error: metaapo {words[0]}: the package {error.name} is not installed; in a clone of the project, run "
            f"pip install '.[{extra}]'"
        )


if __name__ == "__main__":
    sys.exit(main())
