"""Count loads of models and starts of engines in an iteration, in one or several trees.

    python benchmarks/loads.py --tree before=../before --tree after=.

Two iterations of each method run at smoke scale, but as at the paper's: frozen models are loaded when they are used
(`hardware.resident: false`) and samples come from checkpoints, by the stand-in for vLLM of this tree's tests. Counting
from_pretrained and the stand-in's notes from outside, it works with any version of the loop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

METHODS = ("dpo", "online_dpo", "metaapo", "selm")
ITERATIONS = 2
STAND_IN = Path(__file__).resolve().parent.parent / "tests" / "stand_in"

# Runs in the tree that is counted, with its own tests/conftest.py.
RUN = """
import json, sys
from pathlib import Path
from transformers import PreTrainedModel
from conftest import experiment_document, write_world
from metaapo.experiment import Run, resolve
from metaapo.train import train

folder, method, iterations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
document = experiment_document(
    folder, iterations=iterations, seeds=[0], methods={method: {}}, hardware={"resident": False},
    sampling={"k": 3, "max_new_tokens": 8, "backend": "vllm"},
)
experiment = resolve(document)
write_world(experiment.world_path(0), pairs=16, iterations=iterations)
load = PreTrainedModel.from_pretrained.__func__

def noted(cls, path, *args, **options):
    with (folder / "loads").open("a") as file:
        file.write(f"{path}\\n")
    return load(cls, path, *args, **options)

PreTrainedModel.from_pretrained = classmethod(noted)
train(experiment, Run(method=method, budget=1.0, seed=0))
"""


def count(tree: Path, method: str) -> Counter[str]:
    """Loads by what the folder is called, and starts of engines, of a whole run in a tree."""
    with tempfile.TemporaryDirectory() as folder:
        paths = os.pathsep.join(map(str, (tree, tree / "tests", STAND_IN)))
        notes = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "STARTS": f"{folder}/starts"}
        command = [sys.executable, "-c", RUN, folder, method, str(ITERATIONS)]
        subprocess.run(command, cwd=tree, env=os.environ | notes, check=True, stderr=subprocess.DEVNULL)
        loaded = [Path(line) for line in (Path(folder) / "loads").read_text().splitlines()]
        starts = Path(folder, "starts").read_text().splitlines() if Path(folder, "starts").exists() else []
    found = Counter("reward model" if path.name == "reward_model" else "policies" for path in loaded)
    return found + Counter(engines=len(starts))


def main() -> None:
    """Command line: one JSON line per tree and method, per iteration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", action="append", required=True, help="NAME=FOLDER of a clone")
    for entry in parser.parse_args().tree:
        name, _, tree = entry.partition("=")
        for method in METHODS:
            found = count(Path(tree).resolve(), method)
            print(json.dumps({"tree": name, "method": method} | {k: v / ITERATIONS for k, v in sorted(found.items())}))


if __name__ == "__main__":
    main()
