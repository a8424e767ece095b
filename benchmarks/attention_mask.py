"""CPU seconds to pack 2 x 8 sequences of 2,048 tokens and build their attention mask, in one or several trees in turn.

python benchmarks/attention_mask.py --tree before=../before --tree after=. --rounds 3
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

PROMPTS, RESPONSES, PROMPT, RESPONSE = 2, 8, 200, 1848  # tokens: 2,048 per sequence

# Runs in the tree that is measured; masks were once made with the batch, and are now made on the device that uses them.
RUN = f"""
import time
import torch
from metaapo.models.logps import collate

torch.set_num_threads(1)
prompts = [[own] * {PROMPT} for own in range(1, {PROMPTS} + 1) for _ in range({RESPONSES})]
start = time.process_time()
batch = collate(prompts, [[7] * {RESPONSE}] * len(prompts), 0)
mask = batch.attention_mask
mask = mask(torch.device("cpu")) if callable(mask) else mask
print(time.process_time() - start, *mask.shape)
"""


def seconds(tree: Path) -> tuple[float, list[int]]:
    """CPU seconds in a tree, and the mask's shape."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN]
    said = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), [int(size) for size in said[1:]]


def main() -> None:
    """Command line: one line per round and tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", action="append", required=True, help="NAME=FOLDER of a clone")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        for entry in arguments.tree:
            name, _, tree = entry.partition("=")
            taken, shape = seconds(Path(tree).resolve())
            print(f"{name:<10} {taken:6.2f} s  {shape}")


if __name__ == "__main__":
    main()
