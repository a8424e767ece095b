"""Coverage of judge-corrected intervals in the tiny world, whose gold value is known.

    python benchmarks/judge_correction.py

Two of the world's writers answer random prompts; the gold judge says how much it prefers one answer to the other.
Judges with known errors see the same answers: one blurs the gold reward, one also likes long answers, one knows
nothing. Each replicate draws 512 prompts, labels a random few of them with the gold value, and corrects the judge.
Prints the table in `eval.judge_correction`.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.judge_correction import corrected_mean
from metaapo.worlds.tiny.gold import TAU, gold
from metaapo.worlds.tiny.tasks import FAMILIES, READERS, ask, parse, random_clause
from metaapo.worlds.tiny.writers import CAREFUL, CHATTY, answer

Floats = NDArray[np.float64]


def comparisons(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Of n random prompts: the careful writer's gold reward minus the chatty one's, and its characters likewise."""
    rng = random.Random(seed)
    rewards, lengths = np.empty(n), np.empty(n)
    for i in range(n):
        messages = ask(f"{random_clause(rng.choice(FAMILIES), rng)}, {rng.choice(READERS)}.")
        said = [answer(parse(messages), writer, rng) for writer in (CAREFUL, CHATTY)]
        graded = [gold(messages, text).reward for text in said]
        rewards[i], lengths[i] = graded[0] - graded[1], len(said[0]) - len(said[1])
    return rewards, lengths


def judges(rewards: Floats, lengths: Floats, seed: int = 0) -> dict[str, Floats]:
    """Preferences of the judges for the careful writer's answer, 0 to 1."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (2, len(rewards)))
    return {
        "noisy": expit((rewards + 0.3 * noise[0]) / TAU),
        "likes length": expit((0.7 * rewards + 0.5 * noise[1] + 0.04 * lengths) / TAU),
        "coin": (rng.random(len(rewards)) < 0.5).astype(float),
    }


def coverage(
    truth: Floats, judged: Floats, n_labelled: int, n_questions: int = 512, replicates: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Share of nominal 95 % intervals that contain the mean of `truth`, and the corrected interval's relative width.

    Args:
        truth: (population,) gold values.
        judged: (population,) the judge's values.
        n_labelled: gold labels per replicate.
        n_questions: questions per replicate, drawn with replacement.
        replicates: simulated evaluations.
        seed: of the draws.

    Returns:
        {judge, gold, corrected (coverage, 0 to 1), width (corrected over labels alone)}.
    """
    rng = np.random.default_rng(seed)
    target, hits, widths = truth.mean(), {"judge": 0, "gold": 0, "corrected": 0}, []
    for _ in range(replicates):
        drawn = rng.integers(0, len(truth), n_questions)
        labels = np.where(np.arange(n_questions) < n_labelled, truth[drawn], np.nan)
        found = corrected_mean(judged[drawn], labels)
        for name in hits:
            hits[name] += getattr(found, name).low <= target <= getattr(found, name).high
        widths.append((found.corrected.high - found.corrected.low) / (found.gold.high - found.gold.low))
    return {name: count / replicates for name, count in hits.items()} | {"width": float(np.mean(widths))}


def main() -> None:
    """Command line: print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--population", type=int, default=20000, help="comparisons from which replicates draw")
    parser.add_argument("--replicates", type=int, default=2000, help="simulated evaluations per row")
    args = parser.parse_args()
    rewards, lengths = comparisons(args.population)
    truth = expit(rewards / TAU)
    for name, judged in judges(rewards, lengths).items():
        bias = 100 * (judged - truth).mean()
        for n_labelled in (20, 50, 200):
            c = coverage(truth, judged, n_labelled, replicates=args.replicates)
            shares = " | ".join(f"{c[key]:.2f}" for key in ("judge", "gold", "corrected", "width"))
            print(f"| {name} | {bias:+.1f} | {n_labelled} | {shares} |")


if __name__ == "__main__":
    main()
