"""Published annotations to check scoring against; not part of the repository, since AlpacaEval's are CC BY-NC.

Put them into shared/evaldata next to the checkout, or set METAAPO_EVALDATA to their folder:

    alpaca_eval/    github.com/tatsu-lab/alpaca_eval: annotations/<model>.jsonl.gz from results/<model>/
                    weighted_alpaca_eval_gpt4_turbo/annotations.json, and instruction_difficulty.csv of the data set
                    tatsu-lab/alpaca_eval
    arena_hard/     github.com/lmarena/arena-hard-auto: questions, answers and judgments; ko/: the judgments, answers
                    and leaderboard of github.com/qwopqwop200/ko-arena-hard-auto
    mt_bench/       model_judgment/<judge>.jsonl.gz: the judgments of github.com/lm-sys/FastChat's MT-Bench

The expected.json in each folder holds the published numbers and the official code's results for exactly these files.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EVALDATA = Path(os.environ.get("METAAPO_EVALDATA") or ROOT.parent / "shared" / "evaldata")


def shared(name):
    """The path of a published file. If it is missing, the test is skipped; in CI, which must have it, it fails."""
    path = EVALDATA / name
    if not path.exists():
        missing = f"no published annotations ({name}); tests/evaldata.py says where to put them"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path
