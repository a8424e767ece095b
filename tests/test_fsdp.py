"""The paper's scale in miniature: FSDP2 on two processes, sampling from checkpoints, a slow disk, a crash.

vLLM is replaced by tests/stand_in/vllm.py, which reads the checkpoint and answers from each prompt's own seed; all the
rest is what runs on a node of GPUs.
"""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import experiment_document, write_world
from safetensors.torch import load_file

from metaapo import PROJECT
from metaapo.data import read_json, read_jsonl
from metaapo.experiment import Run, resolve
from metaapo.train import train

STAND_IN = PROJECT / "tests" / "stand_in"
RUN, LORA, BF16 = (Run(method=name, budget=1.0, seed=0) for name in ("metaapo", "lora", "bf16"))
METHODS = {
    "metaapo": {"t_meta": 1, "meta_hidden": 8},
    "lora": {"module": "dpo", "train": {"lora": {"rank": 2}, "lr": 1e-2}},
    "bf16": {"module": "dpo", "train": {"precision": "bf16"}},
}
STARTS = 2 * 2 + 2 * (2 + 1)  # two iterations of MetaAPO, and of two methods that sample for probes alone
SLOW = 20  # seconds that writing the first checkpoint takes


def experiment_in(folder, **hardware):
    document = experiment_document(
        folder,
        iterations=2,
        seeds=[0],
        methods=METHODS,
        train={"batch_size": 6, "micro_batch_size": 2, "lr": 3e-4, "max_length": 48},
        sampling={"k": 3, "max_new_tokens": 8, "backend": "vllm"},
        hardware={"keep_stages": True, "resident": False, **hardware},
    )
    experiment = resolve(document)
    write_world(experiment.world_path(0), pairs=20, iterations=2)
    return experiment


def environment(folder, **variables):
    paths = f"{PROJECT}:{STAND_IN}"
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "STARTS": str(folder / "starts"), **variables}


def launch(folder, experiment, *runs, **variables):
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.dump()))
    start = experiment.hardware.launch.removeprefix("OMP_NUM_THREADS=1 ")
    command = f"{os.path.dirname(sys.executable)}/{start} watched_train --config {config} --run"
    command = [*command.split(), *(run.id for run in runs)]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, env=environment(folder, **variables), check=False
    )


def starts_in(folder):
    path = folder / "starts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The runs in one process."""
    folder = tmp_path_factory.mktemp("alone")
    experiment = experiment_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        for run in (RUN, LORA, BF16):
            train(experiment, run)
    return folder, experiment


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The runs in two processes of one launch under FSDP2, with a slow disk."""
    folder = tmp_path_factory.mktemp("two")
    experiment = experiment_in(folder, processes=2, launcher="config/accelerate/fsdp.yaml")
    done = launch(folder, experiment, RUN, LORA, BF16, SLOW_SAVE=str(SLOW), ALIVE=str(folder / "alive"))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, experiment


def paths_of(run, *folders):
    return [experiment.run_path(run) for _, experiment in folders]


def weights(path):
    return {name: tensor.float() for name, tensor in load_file(path / "model" / "model.safetensors").items()}


def test_sharded_over_two_processes_two_iterations_end_where_one_process_does(alone, two):
    one, other = paths_of(RUN, alone, two)
    for iteration in ("iter1", "iter2"):
        expected, found = weights(one / iteration), weights(other / iteration)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=f"{iteration} {name}")
        logs = [read_jsonl(path / iteration / "train.jsonl") for path in (one, other)]
        for mine, theirs in zip(*logs, strict=True):
            for key in ("loss", "offline_loss", "online_loss", "offline_score", "meta_weight", "grad_norm"):
                assert mine[key] == pytest.approx(theirs[key], abs=1e-5), (iteration, key)


def test_no_weights_are_alive_when_an_engine_starts(two):
    """The wrapped policy, its gradients and its optimizer are gone, in both processes and iterations."""
    notes = read_jsonl_lists(two[0] / "alive")
    assert len(notes) == 2 * STARTS
    assert notes == [[]] * len(notes)


def read_jsonl_lists(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_checkpoint_that_takes_long_to_write_is_complete_when_engines_read_it(two):
    folder, experiment = two
    first = [s["at"] for s in starts_in(folder) if s["model"].endswith("metaapo/budget1.0/seed0/.iter1.partial/model")]
    before = [s["at"] for s in starts_in(folder) if s["model"].endswith("/sft")]
    assert len(first) == 2  # one per process; without the barrier, the second one's dies for want of weights
    assert min(first) - min(before) > SLOW
    assert (experiment.run_path(RUN) / "run.json").is_file()


def test_an_iteration_starts_at_most_two_engines_per_process(alone, two):
    """One samples for annotation and the run's first probe, one for the last probe from the new checkpoint."""
    for (folder, experiment), processes in ((alone, 1), (two, 2)):
        assert len(starts_in(folder)) == STARTS * processes
        recorded = read_json(experiment.run_path(RUN) / "run.json")["iterations"]
        assert [iteration["loads"]["engine"] for iteration in recorded] == [2, 2]
        # at most once to score and once to train
        assert [iteration["loads"]["policy"] for iteration in recorded] == [1, 2]


def test_adapters_are_merged_from_the_shards(alone, two):
    one, other = paths_of(LORA, alone, two)
    expected, found = weights(one / "iter2"), weights(other / "iter2")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4, msg=name)
    moved = (
        found["model.layers.0.mlp.up_proj.weight"] - weights_of_sft(two)["model.layers.0.mlp.up_proj.weight"]
    ).abs()
    assert moved.max() > 1e-3


def weights_of_sft(run):
    return load_file(run[1].world_path(0) / "sft" / "model.safetensors")


def test_bf16_is_saved_as_bf16_and_close_to_one_process(alone, two):
    one, other = paths_of(BF16, alone, two)
    for name, tensor in load_file(other / "iter2" / "model" / "model.safetensors").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.float(), weights(one / "iter2")[name], rtol=0.02, atol=2e-3)


def test_what_an_iteration_sampled_can_be_looked_at(two):
    _, experiment = two
    stages = experiment.run_path(RUN) / "iter1" / "stages"
    sampled = [
        row["id"] for row in read_jsonl(experiment.run_path(RUN) / "iter1" / "annotations.jsonl") if row["sampled"]
    ]
    responses = [line["row"] for line in read_jsonl(stages / "responses.jsonl.gz")]
    rewards = [line["row"] for line in read_jsonl(stages / "rewards.jsonl.gz")]
    assert len(responses) == len(rewards) == len(sampled)
    assert {len(row) for row in responses} == {3}
    assert "text" in responses[0][0]


def test_a_crash_in_training_repeats_no_sampling_and_changes_no_result(alone, tmp_path):
    experiment = experiment_in(tmp_path)
    killed = launch(tmp_path, experiment, RUN, DIE="1")
    assert killed.returncode == -signal.SIGKILL
    assert len(starts_in(tmp_path)) == 1
    stages = experiment.run_path(RUN) / ".iter1.stages"
    before = {file.name: file.stat().st_mtime_ns for file in stages.iterdir()}
    assert {"responses.jsonl.gz", "rewards.jsonl.gz", "online_logps.jsonl.gz"} <= before.keys()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(tmp_path).items():
            patch.setenv(name, value)
        train(experiment, RUN)
    assert len(starts_in(tmp_path)) == 1 + 1 + 2  # iteration 1's last probe, and iteration 2
    kept = experiment.run_path(RUN) / "iter1" / "stages"
    assert {name: (kept / name).stat().st_mtime_ns for name in before if name != "stamp"} == {
        name: time for name, time in before.items() if name != "stamp"
    }
    for iteration in ("iter1", "iter2"):
        for name, tensor in weights(alone[1].run_path(RUN) / iteration).items():
            assert torch.equal(weights(experiment.run_path(RUN) / iteration)[name], tensor)
    assert read_json(experiment.run_path(RUN) / "run.json")["totals"]["sampled"] > 0


def test_stages_of_another_configuration_are_not_used(tmp_path):
    experiment = experiment_in(tmp_path)
    assert launch(tmp_path, experiment, RUN, DIE="1").returncode == -signal.SIGKILL
    changed = experiment.model_copy(update={"sampling": experiment.sampling.model_copy(update={"k": 2})})
    assert launch(tmp_path, changed, RUN, DIE="1").returncode == -signal.SIGKILL
    assert len(starts_in(tmp_path)) == 2
    path = changed.run_path(RUN) / ".iter1.stages" / "responses.jsonl.gz"
    assert {len(line["row"]) for line in read_jsonl(path)} == {2}


def test_one_engine_answers_all_benchmarks_and_turns_each_within_its_limit(alone, tmp_path, monkeypatch):
    from eval.answer import answer_questions, closing_engine, open_policy
    from eval.questions import Question
    from metaapo.config import EvaluationConfig

    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    _, experiment = alone
    engine, tokenizer = open_policy(experiment.world_path(0) / "sft", experiment.sampling)
    asked = {
        "mtbench": [Question(str(n), ("list cat", "sort 7 3"), "writing", {"question_id": n}) for n in range(8)],
        "arenahard": [Question(str(n), ("list dog",), "", {}) for n in range(8)],
    }
    settings = EvaluationConfig(max_new_tokens=9, answer_tokens={"mtbench": 3})
    with closing_engine(engine):
        answered = answer_questions(engine, tokenizer, asked, settings, "model")
    assert len(starts_in(tmp_path)) == 1
    longest = {name: max(len(r.token_ids) for turns in of for r in turns) for name, of in answered.items()}
    assert longest["mtbench"] <= 4 < longest["arenahard"] <= 10  # with EOS
    assert [len(turns) for turns in answered["mtbench"]] == [2] * 8
