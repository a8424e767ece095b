"""The shared loop: micro-batching, selection, weights, ledger, resume after SIGKILL, errors."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from conftest import experiment_document, make_policy, write_world
from safetensors.torch import load_file

from metaapo.data import DataError, read_json, read_jsonl, write_jsonl
from metaapo.experiment import Run, resolve
from metaapo.losses import dpo
from metaapo.train import train

RUNS = ("dpo", "online_dpo", "metaapo", "random")


def experiment_in(folder, **changes):
    experiment = resolve(experiment_document(folder, **changes))
    write_world(experiment.world_path(0))
    return experiment


def run_of(method, seed=0):
    return Run(method=method, budget=1.0, seed=seed)


def weights_of(path):
    return torch.cat([t.flatten() for _, t in sorted(load_file(path / "model" / "model.safetensors").items())])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of every method."""
    experiment = experiment_in(tmp_path_factory.mktemp("results"))
    for method in RUNS:
        train(experiment, run_of(method))
    return experiment


def ledger(experiment, method, iteration):
    return read_jsonl(experiment.run_path(run_of(method)) / f"iter{iteration}" / "annotations.jsonl")


def test_every_iteration_is_kept_and_differs(finished):
    for method in RUNS:
        path = finished.run_path(run_of(method))
        models = [weights_of(path / f"iter{t}") for t in (1, 2, 3)]
        assert not torch.equal(models[0], models[1])
        assert not torch.equal(models[1], models[2])


def test_the_ledger_counts_what_was_sampled(finished):
    for method, expected in (("dpo", 0.0), ("online_dpo", 1.0)):
        for summary in read_json(finished.run_path(run_of(method)) / "run.json")["iterations"]:
            assert summary["annotation_ratio"] == expected
    for summary in read_json(finished.run_path(run_of("metaapo")) / "run.json")["iterations"]:
        rows = ledger(finished, "metaapo", summary["iteration"])
        sampled = [row for row in rows if row["sampled"]]
        assert 0 < len(sampled) < len(rows)
        assert summary["responses_scored"] == 3 * len(sampled) == sum(row["responses_scored"] for row in rows)
        assert summary["annotation_ratio"] == len(sampled) / len(rows)
        assert {row["outcome"] for row in rows if not row["sampled"]} == {"not_sampled"}


def test_the_random_control_takes_as_many_prompts_as_metaapo_and_others(finished):
    for iteration in (1, 2, 3):
        own, matched = (ledger(finished, method, iteration) for method in ("random", "metaapo"))
        assert sum(row["sampled"] for row in own) == sum(row["sampled"] for row in matched)
    assert any(
        a["sampled"] != b["sampled"]
        for t in (1, 2, 3)
        for a, b in zip(ledger(finished, "random", t), ledger(finished, "metaapo", t))
    )


def test_metaapo_samples_with_one_minus_its_weight(finished):
    """The first iteration's probabilities are 1 - h at the untrained map, of scores that are log(1/2) for pi = ref."""
    from metaapo.meta_learner import MetaLearner

    rows = ledger(finished, "metaapo", 1)
    scores = torch.tensor([row["offline_score"] for row in rows])
    assert scores.tolist() == pytest.approx([np.log(0.5)] * len(rows), rel=1e-5)
    expected = 1 - MetaLearner(seed=0).weigh(scores)
    assert [row["sample_probability"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)


def test_weights_follow_the_current_policy_not_the_scores_at_the_start(finished):
    log = read_jsonl(finished.run_path(run_of("metaapo")) / "iter1" / "train.jsonl")
    assert len({row["meta_weight"] for row in log}) == len(log)
    for row in read_jsonl(finished.run_path(run_of("random")) / "iter1" / "train.jsonl"):
        assert row["meta_weight"] == 0.5


def test_the_meta_learner_is_carried_over(finished):
    path = finished.run_path(run_of("metaapo"))
    records = [read_json(path / f"iter{t}" / "meta_learner.json") for t in (1, 2, 3)]
    assert records[1]["start"] == records[0]["end"]
    assert records[2]["start"] == records[1]["end"]
    assert records[0]["start"] != records[0]["end"]
    assert [r["updates"] for r in records] == [2, 2, 2]


def test_run_json_records_the_origin_of_the_numbers(finished):
    record = read_json(finished.run_path(run_of("metaapo")) / "run.json")
    assert set(record["data"]) == {
        "data/pairs.jsonl", "sft/model.safetensors", "reward_model/model.safetensors",
    }  # fmt: skip
    assert record["params"]["t_meta"] == 2
    assert record["packages"]["torch"] == torch.__version__
    assert resolve(record["config"]) == finished


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    results = {}
    for size in (4, 1):
        settings = {"batch_size": 4, "micro_batch_size": size, "lr": 1e-3, "max_length": 48}
        experiment = experiment_in(tmp_path / str(size), train=settings, iterations=1)
        train(experiment, run_of("metaapo"))
        results[size] = weights_of(experiment.run_path(run_of("metaapo")) / "iter1")
    start = torch.cat([t.flatten() for _, t in sorted(make_policy().state_dict().items())])
    moved = (results[4] - start[: len(results[4])]).norm() if len(start) == len(results[4]) else results[4].norm()
    assert moved > 0
    assert (results[4] - results[1]).abs().max() < 1e-4


def test_the_weighted_loss_of_a_step_by_hand(tmp_path):
    """w * L_off + (1 - w) * L_on, just w * L_off for a prompt without an online pair, and its gradient without dw."""
    from metaapo.loop.epoch import micro_batch_losses
    from metaapo.loop.forward import forward_pairs
    from metaapo.loop.ledger import LedgerRow
    from metaapo.loop.prompts import PreferencePair, Prompt
    from metaapo.loop.run import RunContext
    from metaapo.loop.workbench import Workbench
    from metaapo.metaapo import build

    experiment = experiment_in(tmp_path)
    context = RunContext(experiment, run_of("metaapo"))
    method = build(experiment.methods["metaapo"], context)
    model = make_policy(5)
    offline = PreferencePair([6, 7, 2], [8, 2], -3.0, -2.5)
    online = PreferencePair([9, 10, 2], [11, 2], -4.0, -2.0)
    prompts = [
        Prompt("a", [], [1, 4, 6, 5], ("", ""), offline, LedgerRow("a"), online),
        Prompt("b", [], [1, 4, 7, 8, 5], ("", ""), offline, LedgerRow("b")),
    ]
    losses, _ = micro_batch_losses(Workbench.of(context), method, model, prompts)
    for index, prompt in enumerate(prompts):
        off, on = forward_pairs(model, [prompt], [prompt] if prompt.online else [], 0)
        l_off = dpo(off, experiment.train.beta)
        w = method.learner.weigh(-l_off.detach())
        by_hand = w * l_off + ((1 - w) * dpo(on, experiment.train.beta) if on else 0)
        assert losses[index].item() == pytest.approx(by_hand.item(), rel=1e-5)
    gradient = torch.autograd.grad(losses[1], model.lm_head.weight)[0]
    off, _ = forward_pairs(model, [prompts[1]], [], 0)
    l_off = dpo(off, experiment.train.beta)
    expected = method.learner.weigh(-l_off.detach()) * torch.autograd.grad(l_off, model.lm_head.weight)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        ("chosen", " ", r"pairs\.jsonl:1: empty chosen response"),
        ("chosen", "cat " * 60, r"pair p0 has \d+ tokens, train\.max_length is 48"),
        ("rejected", None, r"pairs\.jsonl:1: key 'rejected' is missing"),
    ],
)
def test_bad_pairs_are_reported_and_nothing_is_written(tmp_path, row, value, message):
    experiment = experiment_in(tmp_path)
    path = experiment.world_path(0) / "data" / "pairs.jsonl"
    rows = read_jsonl(path)
    if value is None:
        del rows[0][row]
    else:
        rows[0][row] = value
    write_jsonl(path, rows)
    with pytest.raises(DataError, match=message):
        train(experiment, run_of("dpo"))
    assert not (experiment.run_path(run_of("dpo")) / "run.json").exists()
    assert not list(experiment.run_path(run_of("dpo")).glob("iter*"))


def start_training(folder, experiment, *runs):
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(experiment.dump()))
    command = [sys.executable, "-m", "metaapo.train", "--config", str(config), "--run", *(run.id for run in runs)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def test_a_killed_job_resumes_from_the_last_finished_iteration_of_its_second_run_to_the_same_result(finished, tmp_path):
    experiment, job = experiment_in(tmp_path), (run_of("metaapo", seed=1), run_of("metaapo"))
    first, second = map(experiment.run_path, job)
    process = start_training(tmp_path, experiment, *job)
    deadline = time.monotonic() + 120
    while not (second / ".iter2.partial").exists():
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_json(first / "run.json")["seed"] == 1
    assert (second / "iter1" / "summary.json").exists()
    assert not (second / "iter2").exists()
    assert not (second / "run.json").exists()
    kept = [*(first / f"iter{t}" / "summary.json" for t in (1, 2, 3)), second / "iter1" / "summary.json"]
    untouched = [path.stat().st_mtime_ns for path in kept]
    assert start_training(tmp_path, experiment, *job).wait() == 0
    assert [path.stat().st_mtime_ns for path in kept] == untouched
    for t in (1, 2, 3):
        reference = finished.run_path(run_of("metaapo")) / f"iter{t}"
        for name in ("train.jsonl", "annotations.jsonl", "probes.jsonl", "model/model.safetensors"):
            assert (second / f"iter{t}" / name).read_bytes() == (reference / name).read_bytes(), (t, name)


def test_iterations_of_other_settings_are_not_reused(tmp_path):
    train(experiment_in(tmp_path, iterations=1), run_of("dpo"))
    changed = experiment_in(tmp_path, iterations=1, train={"lr": 5e-3, "batch_size": 4, "micro_batch_size": 4})
    before = weights_of(changed.run_path(run_of("dpo")) / "iter1")
    train(changed, run_of("dpo"))
    assert not torch.equal(before, weights_of(changed.run_path(run_of("dpo")) / "iter1"))


SWITCHES = ("score", "meta_init", "unsampled", "meta_buffer", "start")


def metaapo_with(folder, row, reading="official-code", **changes):
    entry = {"t_meta": 2, "fidelity": {row: reading}}
    return experiment_in(folder, methods={"dpo": {}, "metaapo": entry}, **changes)


@pytest.mark.parametrize(("row", "reading"), [*((row, "official-code") for row in SWITCHES), ("unsampled", "full")])
def test_every_fidelity_switch_changes_the_run(finished, tmp_path, row, reading):
    experiment = metaapo_with(tmp_path, row, reading)
    if row == "start":
        train(experiment, run_of("dpo"))
    train(experiment, run_of("metaapo"))
    official, paper = (e.run_path(run_of("metaapo")) / "iter3" for e in (experiment, finished))
    assert not torch.equal(weights_of(official), weights_of(paper))


def test_no_fidelity_switch_is_forgotten():
    """`ties` needs a world with ties, and `simpo` another objective (tests/test_methods.py)."""
    from metaapo.metaapo import Fidelity

    assert {*SWITCHES, "ties", "simpo"} == set(Fidelity.model_fields)


def test_the_words_for_all_switches_are_readings_of_each():
    from metaapo.metaapo import Params

    readings = {word: Params(fidelity=word).fidelity for word in ("paper", "official-code")}
    assert [fidelity.unsampled for fidelity in readings.values()] == ["scaled", "dropped"]
    assert readings["paper"] == Params().fidelity


def test_an_offline_pair_in_both_places_has_weight_one(policy):
    """w * L_off + (1 - w) * L_off = L_off, whatever h_phi says; with an online pair, w still mixes."""
    from metaapo.loop.forward import forward_pairs
    from metaapo.loop.ledger import LedgerRow
    from metaapo.loop.online import reuse_offline_pairs
    from metaapo.loop.prompts import PreferencePair, Prompt
    from metaapo.loop.step import prompt_losses
    from metaapo.method import Method

    pairs = [PreferencePair([6, 2], [7, 8, 2], -3.0, -5.0), PreferencePair([9, 2], [6, 7, 2], -4.0, -3.0)]
    prompts = [Prompt(str(i), [], [1, 4, 6, 5], ("", ""), pairs[0], LedgerRow(str(i))) for i in (0, 1)]
    prompts[1].online = pairs[1]
    reuse_offline_pairs(prompts)
    assert [prompt.online for prompt in prompts] == pairs
    method = Method(select=None, weigh=lambda pairs: 0.3)
    losses, columns = prompt_losses(
        method, 0.3, *forward_pairs(policy, prompts, prompts, pad_id=0), torch.tensor([True, True]), torch.zeros(2)
    )
    offline, online = columns.offline, columns.online
    assert losses[0].item() == pytest.approx(offline[0].item(), rel=1e-5)
    assert losses[1].item() == pytest.approx(0.3 * offline[1].item() + 0.7 * online[1].item(), rel=1e-5)
    assert offline[1].item() != pytest.approx(online[1].item())


def test_a_cut_response_is_a_worse_candidate(tmp_path):
    """With a penalty above all rewards, a finished candidate is always chosen over a cut one."""
    trained = []
    for penalty in (0.0, 100.0):
        sampling = {"k": 3, "max_new_tokens": 8, "batch_size": 64, "cut_penalty": penalty}
        experiment = experiment_in(tmp_path / str(penalty), methods={"online_dpo": {}}, iterations=1, sampling=sampling)
        train(experiment, run_of("online_dpo"))
        path = experiment.run_path(run_of("online_dpo"))
        trained.append(
            ([row["reward_chosen"] for row in ledger(experiment, "online_dpo", 1)], weights_of(path / "iter1"))
        )
    (plain, weights), (penalised, others) = trained
    assert all(high >= low for high, low in zip(plain, penalised))  # the ledger records rewards, not scores
    assert plain != penalised
    assert not torch.equal(weights, others)


def test_a_run_at_any_budget_starts_from_the_only_run_of_an_offline_method(tmp_path):
    from metaapo.loop.run import RunContext

    methods = {"dpo": {}, "online_dpo": {"budget": [0.25, 1.0], "train": {"start": "dpo"}}}
    experiment = experiment_in(tmp_path, methods=methods, iterations=1)
    run = Run(method="online_dpo", budget=0.25, seed=0)
    assert experiment.needs(run) == [run_of("dpo")]
    train(experiment, run_of("dpo"))
    train(experiment, run)
    start = RunContext(experiment, run).start_path(1)
    assert start == experiment.run_path(run_of("dpo")) / "iter1" / "model"
    assert read_json(experiment.run_path(run) / "run.json")["budget"] == 0.25


def test_a_start_that_samples_needs_a_run_at_the_same_budget(tmp_path):
    methods = {"online_dpo": {}, "metaapo": {"budget": [0.25], "train": {"start": "online_dpo"}}}
    with pytest.raises(DataError, match=r"needs the run online_dpo/budget0\.25/seed0"):
        experiment_in(tmp_path, methods=methods)


def test_keeping_ties_changes_a_run_with_ties_and_no_other(finished, tmp_path):
    """Both sides of a tie are one response: its loss is log 2 for any policy, and only h_phi can learn from it."""
    without = metaapo_with(tmp_path / "without", "ties")
    train(without, run_of("metaapo"))
    kept, dropped = (weights_of(e.run_path(run_of("metaapo")) / "iter3") for e in (without, finished))
    assert torch.equal(kept, dropped)
    learned = {}
    for reading in ("official-code", "paper"):  # without a penalty, a cut response ties with a finished one
        entry = {"t_meta": 2, "fidelity": {"ties": reading}, "sampling": {"cut_penalty": 0.0}}
        experiment = experiment_in(tmp_path / reading, methods={"metaapo": entry}, iterations=1)
        make_all_rewards_equal(experiment.world_path(0) / "reward_model")
        train(experiment, run_of("metaapo"))
        rows = ledger(experiment, "metaapo", 1)
        assert {row["outcome"] for row in rows if row["sampled"]} == {"tie"}
        folder = experiment.run_path(run_of("metaapo")) / "iter1"
        learned[reading] = read_json(folder / "meta_learner.json"), weights_of(folder)
    assert learned["paper"][0]["end"] == learned["paper"][0]["start"]
    assert learned["official-code"][0]["end"] != learned["official-code"][0]["start"]
    assert not torch.equal(learned["official-code"][1], learned["paper"][1])


def make_all_rewards_equal(folder):
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": torch.zeros_like(weights["score.weight"])}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip


def test_the_reference_scores_a_world_s_offline_pairs_once(finished, tmp_path):
    kept = sorted((finished.world_path(0) / "reference_logps").iterdir())
    assert [path.name.partition("-")[0] for path in kept] == ["iter1", "iter2", "iter3"]
    alone = experiment_in(tmp_path)
    train(
        alone, run_of("metaapo")
    )  # computes for itself what it reads in the world of `finished`, where dpo came first
    for iteration in (1, 2, 3):
        assert ledger(alone, "metaapo", iteration) == ledger(finished, "metaapo", iteration)
    for own, other in zip(sorted((alone.world_path(0) / "reference_logps").iterdir()), kept, strict=True):
        assert (own.name, own.read_bytes()) == (other.name, other.read_bytes())


def test_another_reference_has_other_kept_logps(tmp_path):
    experiment = experiment_in(tmp_path)
    train(experiment, run_of("dpo"))
    make_policy(7).save_pretrained(experiment.world_path(0) / "sft")
    train(experiment, run_of("dpo"))
    assert len(list((experiment.world_path(0) / "reference_logps").iterdir())) == 6


def test_no_pair_is_scored_whose_score_nobody_reads(finished):
    for method in ("dpo", "random"):
        assert {row["offline_score"] for row in ledger(finished, method, 2)} == {None}
    assert None not in {row["offline_score"] for row in ledger(finished, "metaapo", 2)}
