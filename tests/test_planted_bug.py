"""`reports.check` fails on a run with a planted bug: chosen and rejected swapped in a tenth of the online pairs."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import experiment_document, write_world

from metaapo import PROJECT
from metaapo.data import read_jsonl, write_json
from metaapo.experiment import resolve
from metaapo.loop.annotate import best_worst
from metaapo.losses import PairLogps, dpo
from reports import check

PLANTED = PROJECT / "tests" / "planted_bug"
WORLDS, PROMPTS, CANDIDATES, FEATURES, STEPS = 6, 48, 8, 6, 40


@pytest.fixture(scope="module")
def swapping():
    """The bug's function; loading the module also puts its import hook in place, which is taken out again."""
    hooks = list(sys.meta_path)
    spec = importlib.util.spec_from_file_location("planted_bug", PLANTED / "sitecustomize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.meta_path[:] = hooks
    return module.swapping


def test_the_bug_swaps_about_a_tenth_of_the_pairs_of_a_run_and_is_planted_from_outside(tmp_path):
    swapped = {}
    for name, path in (("clean", PROJECT), ("planted", f"{PLANTED}{os.pathsep}{PROJECT}")):
        sampling = {"k": 3, "max_new_tokens": 8, "batch_size": 384, "cut_penalty": 0.0}  # so rewards are scores
        document = experiment_document(tmp_path / name, iterations=1, sampling=sampling, methods={"online_dpo": {}})
        experiment = resolve(document)
        write_world(experiment.world_path(0), pairs=192, iterations=1)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "metaapo.train", "--config", f"{tmp_path / name}.yaml"]
        environment = os.environ | {"PYTHONPATH": str(path)}
        run = "online_dpo/budget1.0/seed0"
        subprocess.run([*command, "--run", run], check=True, env=environment, capture_output=True, cwd=PROJECT)
        rows = read_jsonl(experiment.results / "runs" / run / "iter1" / "annotations.jsonl")
        pairs = [row for row in rows if row["outcome"] == "pair"]
        swapped[name] = np.mean([row["reward_chosen"] < row["reward_rejected"] for row in pairs])
    assert swapped["clean"] == 0
    assert 0.03 < swapped["planted"] < 0.2


def win_rate(seed, world, pair_of):
    """Win rate, in points, of a log-linear policy over fixed candidates after online DPO, against where it started.

    Args:
        seed: of the sampling.
        world: of the candidates' features and the gold reward; the annotator is the gold reward plus fixed errors.
        pair_of: `best_worst`, or the same with a bug.
    """
    rng = np.random.default_rng([world, 1000])
    features = torch.tensor(rng.normal(size=(PROMPTS, CANDIDATES, FEATURES)), dtype=torch.float32)
    gold = features @ torch.tensor(rng.normal(size=FEATURES), dtype=torch.float32)
    reward = (gold + torch.tensor(rng.normal(size=gold.shape), dtype=torch.float32)).tolist()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(FEATURES, requires_grad=True)
    optimizer, zeros = torch.optim.SGD([weights], lr=0.5), torch.zeros(PROMPTS)
    for _ in range(STEPS):
        logps = torch.log_softmax(features @ weights, -1)
        drawn = torch.multinomial(logps.detach().exp(), 4, generator=generator).tolist()
        pairs = [pair_of([f"{p}-{i}" for i in own], [reward[p][i] for i in own]) for p, own in enumerate(drawn)]
        chosen, rejected = (
            logps[torch.arange(PROMPTS), [own[getattr(pair, side)] for own, pair in zip(drawn, pairs)]]
            for side in ("chosen", "rejected")
        )
        optimizer.zero_grad()
        dpo(PairLogps(chosen, rejected, zeros, zeros, zeros, zeros), beta=0.5).mean().backward()
        optimizer.step()
    policy = torch.softmax(features @ weights, -1).detach()
    beaten = ((gold[:, :, None] > gold[:, None]).float() + 0.5 * (gold[:, :, None] == gold[:, None])).mean(-1)
    return 100 * (policy * beaten).sum(-1).mean().item()


def results(folder, first_seed, pair_of):
    """A folder with a score table, as an experiment of one method with a world per seed leaves it."""
    row = {"method": "online_dpo", "budget": "1.0", "iteration": 1, "benchmark": "pooled", "judge": "gold"}
    row |= {"metric": "win_rate", "annotation_ratio_total": 1.0}
    rows = [
        row | {"world": world, "seed": world, "value": win_rate(first_seed + world, world, pair_of)}
        for world in range(WORLDS)
    ]
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    write_json(folder / "claims.json", [])
    return folder


def test_check_passes_with_other_seeds_and_fails_with_the_bug(tmp_path, swapping):
    agreed = {"other seeds": [], "planted": []}
    for repeat in range(8):
        reference = results(tmp_path / f"reference{repeat}", 1000 * repeat, best_worst)
        for name, pair_of in (("other seeds", best_worst), ("planted", swapping(best_worst))):
            run = results(tmp_path / f"{name}{repeat}", 1000 * repeat + 500, pair_of)
            agreed[name].append(check.check(run, reference)["agree"])
    assert sum(agreed["other seeds"]) >= 7
    assert sum(agreed["planted"]) <= 1
