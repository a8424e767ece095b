"""Error rates and power of the verdicts with registered looks, beside one test and beside unregistered peeking.

    python benchmarks/sequential_design.py [--simulated 2000]

Simulates whole experiments with the code that decides the claims (`reports.claims`), on evidence whose truth is known:
all six claims, every part at its bound ("all null") or all but one part of each claim far above it ("one part null",
the worst case for a conjunction), and one contrast with a true effect of 1, 3 or 5 points. Prints Markdown tables; the
numbers in docs/verdicts.md come from here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from test_claims import NULL, ONE_PART, ONE_PART_FALSE, Deciding  # noqa: E402 - after the path is set
from test_sequential import at_looks  # noqa: E402

from reports.claims import CLAIMS, Claim, rule_at_looks  # noqa: E402
from reports.sequential import FIXED, Look, looks_of  # noqa: E402

LOOKS = (6, 9, 12, 18)
PEEKS = tuple(range(3, 11))
SEED_SDS = (0.0, 2.0, 8.0)


def share(
    truth: dict, claims: list[Claim], ns: tuple[int, ...], looks: list[Look], simulated: int
) -> tuple[float, float]:
    """Share of experiments with any "supported", and the mean number of worlds until all claims were decided."""
    supported, worlds = 0, 0
    for chance in range(simulated):
        rulings = rule_at_looks(claims, at_looks(Deciding(**truth, seeds=ns[-1], chance=chance), ns), looks)
        supported += any(ruling.verdict == "supported" for ruling in rulings)
        worlds += max(
            ns[-1] if ruling.verdict == "inconclusive" else ruling.parts[0].estimate.n_seeds for ruling in rulings
        )
    return supported / simulated, worlds / simulated


def errors(simulated: int) -> None:
    """Print the share of experiments with any false "supported"."""
    print(
        "| truth | seed SD | fixed, 18 worlds | registered looks | the same looks, unregistered |\n"
        + "| --- " * 5
        + "|"
    )
    for name, truth in (("all null", NULL), ("one part null", ONE_PART_FALSE)):
        for sd in SEED_SDS:
            at = truth | {"seed_sd": sd}
            designs = ((LOOKS[-1:], [FIXED]), (LOOKS, looks_of(LOOKS, "obrien_fleming")), (LOOKS, [FIXED] * len(LOOKS)))
            rates = [share(at, list(CLAIMS), ns, looks, simulated)[0] for ns, looks in designs]
            print(f"| {name} | {sd:g} | " + " | ".join(f"{100 * rate:.1f} %" for rate in rates) + " |", flush=True)


def peeking(simulated: int) -> None:
    """Print what a look after every world from the third to the tenth does to one comparison."""
    truth = {"gain": 0.0, "seed_sd": 2.0, "prompt_sd": 1.0, "noise": 2.0}
    naive = share(truth, [ONE_PART], PEEKS, [FIXED] * len(PEEKS), simulated)[0]
    registered = share(truth, [ONE_PART], PEEKS, looks_of(PEEKS, "pocock"), simulated)[0]
    print(
        f"\nOne null comparison, a look at every world from 3 to 10: unregistered {100 * naive:.1f} %, registered "
        f"{100 * registered:.1f} % false support"
    )


def power(simulated: int) -> None:
    """Print the power for one comparison, and how many worlds it took."""
    print(
        "\n| effect, points | fixed, 18 worlds | looks, O'Brien-Fleming | mean worlds | looks, Pocock | mean worlds |\n"
        + "| --- " * 6
        + "|"
    )
    for effect in (1.0, 3.0, 5.0):
        truth = {"gain": effect, "seed_sd": 3.0}
        cells = [f"{100 * share(truth, [ONE_PART], LOOKS[-1:], [FIXED], simulated)[0]:.0f} %"]
        for spending in ("obrien_fleming", "pocock"):
            rate, worlds = share(truth, [ONE_PART], LOOKS, looks_of(LOOKS, spending), simulated)
            cells += [f"{100 * rate:.0f} %", f"{worlds:.1f}"]
        print(f"| {effect:g} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Command line: python benchmarks/sequential_design.py."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulated", type=int, default=2000, help="experiments per cell")
    parser.add_argument("--only", choices=("peeking", "power", "errors"), help="print one table")
    arguments = parser.parse_args()
    tables: dict[str, Callable[[int], None]] = {"peeking": peeking, "power": power, "errors": errors}
    for name, table in tables.items():
        if arguments.only in (None, name):
            table(arguments.simulated)


if __name__ == "__main__":
    main()
