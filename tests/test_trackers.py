"""Finished runs reach a tracker, and policies get a card; the libraries that they are for read both back."""

import argparse
import sys

import pytest

from metaapo.data import DataError, write_json, write_jsonl, write_text
from reports import model_card, trackers

STEPS = 3


@pytest.fixture
def results(tmp_path):
    """The files of a finished experiment with two runs of two iterations."""
    folder = tmp_path / "results"
    head = "method,budget,seed,iteration,benchmark,version,judge,metric,value,ci_low,ci_high,n\n"
    rows = "".join(
        f"dpo,1.0,{s},{t},mtbench,v1,gold,average,{5 + t},{4 + t},{6 + t},8\n" for s in (0, 1) for t in (1, 2)
    )
    write_text(folder / "scores.csv", head + rows + "dpo,1.0,0,2,mtbench,v1,gold,kind:mixed,,,,8\n")
    write_json(
        folder / "claims.json", [{"id": "C1", "statement": "Wins.", "verdict": "inconclusive", "reason": "too few"}]
    )
    for seed in (0, 1):
        run = folder / "runs" / "dpo" / "budget1.0" / f"seed{seed}"
        iteration = {"prompts": 10, "sampled": 5, "responses_scored": 20, "kl": 1.5}
        config = {"experiment": "small", "sampling": {"k": 4}, "sft": {"checkpoint": {"path": ""}}}
        write_json(
            run / "run.json",
            {
                "method": "dpo", "module": "baselines.dpo", "budget": 1.0, "seed": seed, "world": 0,
                "params": {"objective": "dpo"}, "sampling": {"k": 4},
                "train": dict.fromkeys(("lr", "beta", "batch_size", "start", "reference", "precision"), 1),
                "config": config | {"world": {"name": "tiny"}},
                "commit": "c" * 40, "code_sha256": "d" * 64, "packages": {"torch": "2.13.0", "peft": None},
                "machine": {"system": "Linux"}, "data": {"data/pairs.jsonl": "e" * 64},
                "finished": "2026-11-25T17:37:04Z", "seconds": 64.0, "iterations": [iteration, iteration],
            },
        )  # fmt: skip
        for t in (1, 2):
            log = [{"iteration": t, "step": step, "loss": 1 / (step + t), "meta": None} for step in range(1, STEPS + 1)]
            write_jsonl(run / f"iter{t}" / "train.jsonl", log)
    return folder


def test_steps_count_over_iterations_and_scores_come_at_their_ends(results):
    run = trackers.tracked_runs(results)[1]
    assert run.name == "dpo/budget1.0/seed1"
    assert list(run.steps) == [1, 2, 3, 4, 5, 6]
    assert run.steps[4] == {"train/loss": 1 / 3}
    ends = {step: (row["mtbench-gold/average"], row["annotations"]) for step, row in run.steps.items() if len(row) > 1}
    assert ends == {3: (6.0, 20.0), 6: (7.0, 40.0)}
    assert (run.params["sampling.k"], run.tags["commit"]) == ("4", "c" * 40)


def test_an_untrained_experiment_has_nothing_to_track(tmp_path, capsys):
    with pytest.raises(DataError, match="no finished run .*; train first"):
        trackers.tracked_runs(tmp_path)
    assert command(trackers, "--run", tmp_path, "--to", "mlflow", "--out", tmp_path / "x") == 2


@pytest.mark.parametrize("tracker", trackers.WRITERS)
def test_a_missing_library_is_named_with_its_extra(tracker, results, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, tracker, None)
    assert command(trackers, "--run", results, "--to", tracker, "--out", tmp_path / "out") == 2
    assert f"run pip install '.[{tracker}]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def command(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(argument) for argument in arguments]))


def test_mlflow_reads_the_runs_back(results, tmp_path, capsys):
    pytest.importorskip("mlflow", reason="pip install '.[mlflow]'")
    pytest.importorskip("alembic", reason="pip install '.[mlflow]'")
    from mlflow import MlflowClient

    assert command(trackers, "--run", results, "--to", "mlflow", "--out", tmp_path / "mlflow.db") == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = found["dpo/budget1.0/seed0"]
    assert len(found) == 2
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 64_000)
    assert (run.data.params["params.objective"], run.data.tags["commit"]) == ("dpo", "c" * 40)
    history = client.get_metric_history(run.info.run_id, "mtbench-gold/average")
    assert [(metric.step, metric.value) for metric in history] == [(3, 6.0), (6, 7.0)]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 2 * STEPS


def wandb_records(path):
    """The records of an offline run: a header of 7 bytes, then LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, kept = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        kept += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(kept)
            yield record
            kept = b""


def test_wandbs_own_records_hold_the_runs(results, tmp_path, capsys):
    pytest.importorskip("wandb", reason="pip install '.[wandb]'")
    assert command(trackers, "--run", results, "--to", "wandb", "--out", tmp_path / "out") == 0
    files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    records = list(wandb_records(files[0]))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert (run.display_name, run.project) == ("dpo/budget1.0/seed0", "small")
    rows = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert len(rows) == 2 * STEPS
    assert float(rows[-1]["mtbench-gold/average"]) == 7.0


def test_the_hubs_library_reads_a_model_cards_scores(results, tmp_path, capsys):
    from huggingface_hub import ModelCard

    out = tmp_path / "README.md"
    assert command(model_card, "--run", results, "--policy", "dpo/budget1.0/seed1", "--out", out) == 0
    card = ModelCard.load(out)
    (score,) = card.data.eval_results
    assert (score.dataset_type, score.metric_type, score.metric_value) == ("mtbench", "average", 7.0)
    assert card.data.tags == ["preference-optimization", "dpo", "arxiv:2509.23371"]


def test_a_model_card_has_the_ledger_the_verdicts_and_the_provenance(results):
    text = str(model_card.model_card(results, "dpo/budget1.0/seed0"))
    assert "| all | 20 | 10 | 40 | 0.500 |" in text
    assert "| **C1** Wins. | inconclusive | too few |" in text
    assert "| mtbench (v1) | gold | average | 7.0 [6.0, 8.0] | 8 |" in text
    assert f"Commit `{'c' * 40}`" in text
    assert "It lives in a small world" in text
    (results / "scores.csv").unlink()
    assert "Not evaluated." in str(model_card.model_card(results, "dpo/budget1.0/seed0"))


def test_an_unknown_policy_is_answered_with_the_known_ones(results):
    with pytest.raises(DataError, match="no finished run; give one of dpo/budget1.0/seed0, dpo/budget1.0/seed1"):
        model_card.model_card(results, "dpo/budget1.0/seed7")
