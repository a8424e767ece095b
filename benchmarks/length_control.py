"""CPU seconds of scoring published AlpacaEval annotations: ours with intervals, and alpaca-eval's code without.

    python benchmarks/length_control.py --annotations FOLDER/annotations/*.jsonl.gz \
        --difficulty FOLDER/instruction_difficulty.csv --gamed FOLDER/df_gamed_surrogate.csv.gz

`tests/evaldata.py` says where the files come from. Both take turns in one process and choose C by cross-validation;
reading the files and importing libraries are not counted. The ratio is steadier than the seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

from eval.alpacaeval2.score import read_difficulty, read_gamed, score
from metaapo.data import read_records


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Command line: print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", nargs="+", required=True, help="annotations, a file per model")
    parser.add_argument("--difficulty", required=True, help="CSV with the column instruction_difficulty")
    parser.add_argument("--gamed", required=True, help="CSV like upstream's df_gamed.csv")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    args = parser.parse_args()
    from alpaca_eval.metrics import glm_winrate

    models = [read_records(path) for path in args.annotations]
    texts = [
        [row | {"output_1": "x" * row["len_1"], "output_2": "x" * row["len_2"]} for row in rows] for rows in models
    ]
    difficulty, gamed = read_difficulty(args.difficulty), read_gamed(args.gamed)
    score(models[0], difficulty, gamed)  # imports
    ours, theirs = [], []
    with mock.patch.object(glm_winrate, "hf_hub_download", return_value=args.gamed):
        for _ in range(args.rounds):
            ours.append(seconds(lambda: [score(rows, difficulty, gamed) for rows in models]))
            theirs.append(
                seconds(
                    lambda: [glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None) for rows in texts]
                )
            )
    found = {"models": len(models), "ours": median(ours), "alpaca_eval": median(theirs)}
    print(json.dumps(found | {"ratio": found["ours"] / found["alpaca_eval"]}))


if __name__ == "__main__":
    main()
