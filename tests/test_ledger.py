"""The annotation ledger: one name per quantity, in code, in files, in tables; totals are sums over its rows."""

from dataclasses import fields

import pytest
from conftest import experiment_document, write_world

from metaapo.data import read_json, read_jsonl
from metaapo.experiment import resolve
from metaapo.loop.ledger import LedgerRow, Totals, run_totals, totals
from metaapo.train import train

METHODS = {"dpo": {}, "online_dpo": {}, "ppo": {"rollout": 4, "minibatch": 4, "epochs": 1, "budget": [0.5]}}
ROW = [field.name for field in fields(LedgerRow)]
TOTALS = [field.name for field in fields(Totals)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The run folders of an offline, an online and a reinforcement-learning method."""
    document = experiment_document(tmp_path_factory.mktemp("results"), methods=METHODS, iterations=2, seeds=[0])
    experiment = resolve(document)
    write_world(experiment.world_path(0), pairs=16, iterations=2)
    for run in experiment.runs():
        train(experiment, run)
    return {run.method: experiment.run_path(run) for run in experiment.runs()}


@pytest.mark.parametrize("method", METHODS)
def test_the_fields_of_the_row_are_the_keys_on_disk(folders, method):
    for row in read_jsonl(folders[method] / "iter1" / "annotations.jsonl"):
        assert list(row) == ROW


@pytest.mark.parametrize("method", METHODS)
def test_totals_are_sums_over_the_rows_under_the_same_names(folders, method):
    record = read_json(folders[method] / "run.json")
    for iteration, summary in enumerate(record["iterations"], start=1):
        rows = [LedgerRow(**row) for row in read_jsonl(folders[method] / f"iter{iteration}" / "annotations.jsonl")]
        assert {name: summary[name] for name in TOTALS} == vars(totals(rows))
        for name in set(ROW) & set(TOTALS):
            assert summary[name] == sum(getattr(row, name) for row in rows)
    assert record["totals"] == vars(run_totals(record["iterations"]))
    assert list(record["totals"]) == TOTALS


def test_no_other_name_is_given_to_a_quantity_of_the_ledger(folders):
    """Names from an earlier format for quantities that are named differently now."""
    retired = {"responses", "annotations", "generated", "calls", "tokens"}
    for folder in folders.values():
        record = read_json(folder / "run.json")
        for mapping in (record, record["totals"], *record["iterations"], *map(vars, [LedgerRow("x"), Totals()])):
            assert not retired & set(mapping)


def test_totals_by_hand():
    rows = [
        LedgerRow("a", sampled=True, responses_generated=3, tokens_generated=9, responses_scored=3, outcome="pair"),
        LedgerRow("b", sampled=True, responses_generated=3, tokens_generated=6, responses_scored=5, outcome="tie"),
        LedgerRow("c", sampled=True, responses_scored=1, reward_model_calls=1, outcome="identical"),
        LedgerRow("d"),
    ]
    spent = totals(rows)
    assert vars(spent) == {
        "prompts": 4, "sampled": 3, "responses_generated": 6, "tokens_generated": 15, "responses_scored": 9,
        "reward_model_calls": 1, "pairs": 1, "ties": 1, "identical": 1, "left_out": 0,
    }  # fmt: skip
    assert spent.annotation_ratio(k=3) == 9 / 12
    assert run_totals([vars(spent), vars(spent)]).responses_scored == 18


def test_nothing_sampled_is_a_ratio_of_zero():
    assert totals([]).annotation_ratio(k=8) == 0
    assert totals([LedgerRow("a")]).annotation_ratio(k=8) == 0


def test_scores_csv_counts_what_the_ledger_scored(folders):
    """The column `annotations` is the running sum of responses_scored."""
    from reports.collect import ledger

    summaries = read_json(folders["online_dpo"] / "run.json")["iterations"]
    columns = ledger(summaries, k=3)
    assert [row["annotations"] for row in columns] == [24, 48]
    assert columns[-1]["annotations"] == run_totals(summaries).responses_scored
