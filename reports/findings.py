"""Make docs/findings.md, what this project found out in plain words, from the kept results.

    python -m reports.findings                     write docs/findings.md
    python -m reports.findings --check             exit with status 1 if it is not what the kept results give

Sentences are in findings.md.j2; every number comes from a file below docs/results/, to which the sentence links. A test
makes the page again and compares.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metaapo import PROJECT
from metaapo.command import errors_in_one_sentence
from metaapo.data import read_json, write_text
from metaapo.method import declaration_of

PAGE = PROJECT / "docs" / "findings.md"
KEPT = PROJECT / "docs" / "results"
EXPERIMENTS = ("default", "assay")


def estimate(row: Mapping[str, Any], value: str = "value", digits: int = 1) -> str:
    """An estimate with its interval, such as "+1.2 [-0.3, 2.7]".

    Args:
        row: with `value`, ci_low and ci_high.
        value: the estimate's key.
        digits: after the point.
    """
    low, high = row["ci_low"], row["ci_high"]
    return f"{row[value]:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def readable(label: str) -> str:
    """A comparison in words: "MetaAPO less DPO" for "metaapo - dpo on pooled win_rate"; other labels stay."""
    found = re.match(r"(\w+) - (\w+) on ", label)
    return " less ".join(declaration_of(method).title for method in found.groups()) if found else label


def kept(folder: Path) -> dict[str, Any]:
    """The kept results that the page quotes: experiment -> {claims: id -> record, assay: name -> row}."""
    found: dict[str, Any] = {}
    for name in EXPERIMENTS:
        claims, assay = (read_json(folder / name / f"{kind}.json") for kind in ("claims", "assay"))
        found[name] = {"claims": {row["id"]: row for row in claims}, "assay": {row["name"]: row for row in assay}}
    return found | {"error_rates": read_json(folder / "error_rates.json")}


def render(folder: Path = KEPT) -> str:
    """The page in Markdown, from the results below `folder`.

    Raises:
        DataError: a file is missing.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"estimate": estimate, "readable": readable}
    return environment.get_template("findings.md.j2").render(kept(folder)).rstrip() + "\n"


def main() -> None:
    """Command line: write the page, or check it."""
    parser = argparse.ArgumentParser(prog="python -m reports.findings", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if the page is outdated"
    )
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        text = render()
        if not arguments.check:
            write_text(PAGE, text)
        elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {PAGE}: not what the kept results give; run python -m reports.findings")


if __name__ == "__main__":
    main()
