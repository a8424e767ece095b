"""Programs with two doors: `python -m MODULE`, and a word of the command `metaapo`.

Such a module offers `add_arguments(parser)` and `run(arguments)`, which returns the exit status or None for 0, and ends
with

    if __name__ == "__main__":
        sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
"""

from __future__ import annotations

import argparse
from collections.abc import Callable


def command_line(
    module: str,
    documentation: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int | None],
    word: str | None = None,
) -> int:
    """Run a module's program with the arguments of this process.

    Args:
        module: its importable name, for the help.
        documentation: its docstring, whose first line describes the program.
        add_arguments: adds the program's options to a parser.
        run: the program.
        word: must come first, such as "score"; None: options only.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=documentation.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar=word).add_parser(word) if word else parser
    add_arguments(commands)
    return run(parser.parse_args()) or 0
