"""The command line of the conformance kit."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from conformance.answers import BETA
from conformance.checks import Check
from conformance.exact import make_world
from conformance.methods import check_method
from conformance.own_loss import FORMULAS, KINDS, OPTIMA, check_loss
from metaapo.command import errors_in_one_sentence
from metaapo.method import known_methods

COLUMNS = ("subject", "check", "error", "tolerance", "ok")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print them; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("loss", nargs="?", help="check a loss of your own instead: package.module:function")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="what the loss is computed from")
    parser.add_argument("--beta", type=float, default=BETA, help="the beta that the loss is called with")
    parser.add_argument("--optimum", choices=OPTIMA, default=OPTIMA[0], help="where training with it must end")
    parser.add_argument("--equals", choices=FORMULAS, help="the formula that each of its losses must equal")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="check these methods only")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    with errors_in_one_sentence(), tempfile.TemporaryDirectory() as folder:
        if options.loss:
            found = check_loss(options.loss, options.kind, make_world(), options.beta, options.optimum, options.equals)
        else:
            methods = options.only or known_methods()
            found = [check for method in methods for check in check_method(method, Path(folder))]
    print(as_json(found) if options.json else as_table(found))
    return 0 if all(check.ok for check in found) else 1


def as_table(found: Sequence[Check]) -> str:
    """A line per check, and the verdict."""
    table = tabulate([_cells(check) for check in found], COLUMNS, "plain", disable_numparse=True)
    failed = sum(not check.ok for check in found)
    compared = sum(check.error is not None for check in found)
    return f"{table}\n\n{compared} checks, {failed or 'none'} failed"


def _cells(check: Check) -> tuple[str, ...]:
    if check.error is None:
        return check.subject, check.name, "", "", check.note
    verdict = "yes" if check.ok else "NO"
    return (
        check.subject,
        check.name,
        f"{check.error:.1e}",
        f"{check.tolerance:.1e}",
        f"{verdict} ({check.note})" if check.note else verdict,
    )


def as_json(found: Sequence[Check]) -> str:
    """One JSON object; errors that are not finite are null."""

    def number(error: float | None) -> float | None:
        return error if error is not None and math.isfinite(error) else None

    checks = [asdict(check) | {"error": number(check.error), "ok": check.ok} for check in found]
    return json.dumps({"ok": all(check.ok for check in found), "checks": checks}, indent=2)
