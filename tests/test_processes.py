"""Several processes train what one trains: same data, same global batch, same parameters."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import experiment_document, write_world
from safetensors.torch import load_file

from metaapo import PROJECT
from metaapo.config import HardwareConfig
from metaapo.data import DataError, read_json, read_jsonl
from metaapo.experiment import Run, resolve
from metaapo.train import train

# Each of two processes gets three prompts per batch, in micro-batches of two and one, and two of the last batch's four.
RUN = Run(method="selm", budget=1.0, seed=0)
TWO = {"processes": 2, "launcher": "config/accelerate/cpu.yaml"}
TRAIN = {"batch_size": 6, "micro_batch_size": 2, "lr": 1e-3, "max_length": 48}


def experiment_in(folder, pairs=20, **changes):
    """SELM's first iteration is DPO, its second ranks greedy samples: it covers all stages without random draws."""
    document = experiment_document(folder, iterations=2, seeds=[0], methods={"selm": {}}, train=TRAIN)
    experiment = resolve(document | changes)
    write_world(experiment.world_path(0), pairs=pairs, iterations=2)
    return experiment


def launch(folder, experiment):
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.dump()))
    start = experiment.hardware.launch.removeprefix("OMP_NUM_THREADS=1 ")
    command = f"{os.path.dirname(sys.executable)}/{start} metaapo.train"
    command = f"{command} --config {config} --run {RUN.id}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command.split(), cwd=PROJECT, capture_output=True, text=True, env=environment, check=False)


def weights(path):
    return torch.cat([t.flatten() for _, t in sorted(load_file(path / "model" / "model.safetensors").items())])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run with one process and with two."""
    alone = experiment_in(tmp_path_factory.mktemp("alone"))
    train(alone, RUN)
    folder = tmp_path_factory.mktemp("two")
    two = experiment_in(folder, hardware=TWO)
    done = launch(folder, two)
    assert done.returncode == 0, done.stderr
    return alone.run_path(RUN), two.run_path(RUN)


def test_two_processes_give_the_parameters_of_one(both):
    for iteration in (1, 2):
        one, two = (weights(path / f"iter{iteration}") for path in both)
        torch.testing.assert_close(one, two, rtol=0, atol=2e-5)


def test_two_processes_write_the_same_records_once(both):
    one, two = both
    assert [read_json(p / "run.json")["iterations"][0]["processes"] for p in both] == [1, 2]
    for iteration in (1, 2):
        ledgers = [read_jsonl(p / f"iter{iteration}" / "annotations.jsonl") for p in both]
        for own, other in zip(*ledgers, strict=True):
            assert own.pop("offline_score") == pytest.approx(other.pop("offline_score"), abs=1e-4)
            for key in ("reward_chosen", "reward_rejected"):
                assert own.pop(key, 0) == pytest.approx(other.pop(key, 0), abs=1e-4)
            assert own == other
        for own, other in zip(*(read_jsonl(p / f"iter{iteration}" / "train.jsonl") for p in both), strict=True):
            known = {key for key, value in own.items() if value is not None}
            assert {key: own[key] for key in known} == pytest.approx({k: other[k] for k in known}, rel=1e-3, abs=1e-4)


def test_a_process_without_a_prompt_in_the_last_batch_still_takes_part(tmp_path):
    """Seven prompts in batches of six: the last batch has none for the second process."""
    alone, two = (experiment_in(tmp_path / name, pairs=14) for name in ("alone", "two"))
    two = two.model_copy(update={"iterations": 1, "hardware": HardwareConfig(**TWO)})
    train(alone, RUN)
    done = launch(tmp_path, two)
    assert done.returncode == 0, done.stderr
    one, other = (weights(experiment.run_path(RUN) / "iter1") for experiment in (alone, two))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)  # a tenth of one step: Adam amplifies rounding errors
    logs = [read_jsonl(experiment.run_path(RUN) / "iter1" / "train.jsonl") for experiment in (alone, two)]
    for ours, theirs in zip(*logs, strict=True):
        assert ours["offline_loss"] == pytest.approx(theirs["offline_loss"], rel=1e-3)


@pytest.mark.slow
def test_an_error_ends_all_processes_with_one_sentence(tmp_path):
    experiment = experiment_in(tmp_path, hardware=TWO, train=TRAIN | {"max_length": 9})
    done = launch(tmp_path, experiment)
    assert done.returncode != 0
    assert "train.max_length is 9" in done.stderr
    assert not (experiment.run_path(RUN) / "run.json").exists()


def test_a_global_batch_other_than_the_configured_one_is_an_error(tmp_path):
    from metaapo.config import ConfigError
    from metaapo.loop.processes import check_processes

    with pytest.raises(DataError, match=r"hardware\.processes is 2, but 1 started; check hardware\.launcher"):
        check_processes(1, 2)
    with pytest.raises(
        ConfigError, match=r"train\.batch_size: 6 \(selm\) is not a multiple of the 4 training processes"
    ):
        experiment_in(tmp_path, hardware=TWO | {"processes": 4})


@pytest.mark.parametrize("path", sorted((PROJECT / "config" / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_launch_configurations_are_understood_by_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"
    assert str(config.distributed_type) != ""


# --- who works on what -----------------------------------------------------------------------------------------------


def test_responses_to_a_prompt_stay_together_and_parts_weigh_about_the_same():
    """Chosen responses first, then rejected ones, as scoring passes them: contiguous halves would part every pair."""
    from metaapo.loop.processes import together

    rng = np.random.default_rng(0)
    keys = [*range(100), *range(100)]
    weights = rng.lognormal(5, 0.8, 200)
    parts = together(keys, weights, 8)
    assert sorted(i for part in parts for i in part) == list(range(200))
    owners = [{rank for rank, part in enumerate(parts) for i in part if keys[i] == key} for key in range(100)]
    assert {len(ranks) for ranks in owners} == {1}
    loads = [sum(weights[i] for i in part) for part in parts]
    assert max(loads) < 1.1 * min(loads)


def test_only_the_first_process_of_each_engine_works_and_results_keep_their_order(monkeypatch):
    from metaapo.loop import processes as module

    worked = []

    def as_rank(rank, gathered):
        job = module.Processes.__new__(module.Processes)
        job.accelerator, job.n, job.rank = None, 4, rank
        monkeypatch.setattr(module, "gather_object", lambda own: gathered.append(own[0]) or own)
        with contextlib.suppress(ValueError):  # one process alone has not all results
            job.share(list("abcdefg"), lambda own: worked.append((rank, own)) or [x.upper() for x in own], every=2)
        return gathered

    gathered = []
    for rank in range(4):
        as_rank(rank, gathered)
    assert [rank for rank, _ in worked] == [0, 2]
    job = module.Processes.__new__(module.Processes)
    job.accelerator, job.n, job.rank = None, 4, 1
    monkeypatch.setattr(module, "gather_object", lambda own: gathered)
    assert job.share(list("abcdefg"), lambda own: own, every=2) == list("ABCDEFG")


def test_batches_hold_no_more_tokens_than_allowed():
    from metaapo.models.logps import length_batches

    rng = np.random.default_rng(0)
    prompts = [[i // 2] * int(rng.integers(5, 50)) for i in range(0, 200, 2) for _ in range(2)]
    responses = [[1] * int(rng.integers(1, 400)) for _ in prompts]
    batches = length_batches(prompts, responses, 64, 900)
    assert sorted(i for batch in batches for i in batch) == list(range(len(prompts)))
    for batch in batches:
        assert len(batch) <= 64
        shared = {tuple(prompts[i]) for i in batch}
        assert sum(map(len, shared)) + sum(len(responses[i]) for i in batch) <= 900
    assert len(length_batches(prompts, responses, 64)) == 4  # without a limit: by number
