"""scores.csv: every score once, with the annotations that the ledger measured; missing files are named."""

import csv
import json

import pytest
from synthetic_results import BASIC, PROMPTS, FakeMethod, K, write_results

from metaapo.data import DataError, read_json, write_json
from metaapo.experiment import load
from reports import collect
from reports.collect import COLUMNS, ledger
from reports.health import checks
from reports.runs import Results


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return load(write_results(tmp_path_factory.mktemp("collect"), seeds=(0, 1), questions=12))


@pytest.fixture(scope="module")
def rows(experiment):
    collect.collect(experiment)
    with (experiment.results / "scores.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_columns_are_those_that_others_rely_on(rows):
    assert tuple(rows[0]) == COLUMNS
    promised = "method budget seed iteration benchmark version judge metric value ci_low ci_high n n_failed".split()
    assert {*promised, "annotations", "annotation_ratio", "mean_length"} <= set(COLUMNS)


def test_every_score_appears_once(experiment, rows):
    keys = [
        tuple(row[k] for k in ("method", "budget", "seed", "iteration", "benchmark", "judge", "metric")) for row in rows
    ]
    assert len(keys) == len(set(keys))
    documents = [read_json(experiment.results / "scores" / b / "gold.json") for b in experiment.benchmarks]
    assert len(rows) == sum(len(row["metrics"]) for document in documents for row in document["rows"])
    trained = {row[0] for row in keys} - {"sft"}
    assert trained == set(BASIC)


def test_cut_answers_are_counted_by_benchmark_and_shown_in_health(tmp_path):
    results = Results.load(write_results(tmp_path))
    assert not len(results.answers)  # nothing was recorded: no row, no error
    for run in results.experiment.runs():
        cut = {"alpacaeval2": 5, "mtbench": 10} if run.method == "metaapo" else {"alpacaeval2": 0, "mtbench": 0}
        noted = {
            f"elsewhere/answers/{benchmark}/{run.id}/iter{t}.jsonl": {"n": 20, "cut": n, "empty": 0}
            for benchmark, n in cut.items()
            for t in range(1, results.experiment.iterations + 1)
        }
        write_json(results.folder / "answers" / f"{run.id}.json", {"run": run.id, "answers": noted})
    results = Results.load(tmp_path / "config.yaml")
    collect.collect(results.experiment)
    shares = results.answers[results.answers["method"] == "metaapo"].groupby("benchmark")["cut"].unique()
    assert {b: list(v) for b, v in shares.items()} == {"alpacaeval2": [0.25], "mtbench": [0.25]}  # of 20, of 2 x 20
    rows = {row["name"]: row for row in checks(results)}
    assert (rows["alpacaeval2: cut answers"]["value"], rows["alpacaeval2: cut answers"]["ok"]) == (0.25, False)
    assert rows["mtbench: cut answers"]["note"] == "worst method: metaapo, mean over seeds"


def health_of(folder, kl=None, cut=None, agreement=None):
    """Health rows by name after changing what the runs recorded: {method: KL}, {run id: share cut}, {method: share}."""
    results = Results.load(write_results(folder, seeds=(0, 1), questions=6, benchmarks=("pooled",)))
    for run, record in results.records.items():
        if run.method in (kl or {}):
            record["iterations"][-1]["kl"] = kl[run.method]
            write_json(results.folder / "runs" / run.id / "run.json", record)
    for run, share in (cut or {}).items():
        iteration = 0 if run.startswith("sft") else 3
        entry = {"n": 18, "turns": 1000, "cut": round(1000 * share), "empty": 0}
        path = f"x/answers/pooled/{run}/iter{iteration}.jsonl"
        write_json(results.folder / "answers" / f"{run}.json", {"run": run, "answers": {path: entry}})
    for method, share in (agreement or {}).items():
        document = {"method": method, "prompts": 128, "samples": 6, "runs": [{"agreement": share}] * 2}
        write_json(results.folder / "agreement" / f"{method}.json", document)
    results = Results.load(folder / "config.yaml")
    collect.collect(results.experiment)
    return {row["name"]: row for row in checks(results)}


KL = "KL to the SFT policy after the last iteration, {} of the tuned methods"


@pytest.mark.parametrize(("kl", "low", "high"), [(3.0, True, True), (0.5, False, True), (6.0, True, False)])
def test_the_kl_of_tuned_methods_must_be_between_1_and_5_nats_at_the_end(tmp_path, kl, low, high):
    others = {"dpo": 3.0, "online_dpo": 3.0, "metaapo": 3.0}
    rows = health_of(tmp_path, kl=others | {"dpo": kl, "random": 9.0})  # a control is not tuned
    assert (rows[KL.format("lowest")]["ok"], rows[KL.format("highest")]["ok"]) == (low, high)


@pytest.mark.parametrize(("sft", "dpo", "ok"), [(0.01, 0.03, (True, True)), (0.02, 0.02, (False, True))])
def test_at_most_1_percent_of_sfts_answers_and_3_of_a_methods_may_be_cut(tmp_path, sft, dpo, ok):
    cut = {"sft/budget0.0/seed0": sft, "dpo/budget1.0/seed0": dpo + 0.01, "dpo/budget1.0/seed1": dpo - 0.01}
    rows = health_of(tmp_path, cut=cut)
    assert (rows["pooled: cut answers of SFT"]["ok"], rows["pooled: cut answers"]["ok"]) == ok
    assert rows["pooled: cut answers"]["value"] == pytest.approx(dpo)


def test_the_reward_model_must_be_right_at_the_end_of_plain_methods(tmp_path):
    rows = health_of(tmp_path, agreement={"dpo": 0.8, "online_dpo": 0.7})
    name = "reward model agrees with gold at the end of {}"
    assert (rows[name.format("dpo")]["ok"], rows[name.format("online_dpo")]["ok"]) == (True, False)


def test_values_survive_the_csv_exactly(experiment, rows):
    document = read_json(experiment.results / "scores/alpacaeval2/gold.json")
    first = document["rows"][0]
    row = next(r for r in rows if r["benchmark"] == "alpacaeval2" and r["metric"] == "win_rate")
    assert float(row["value"]) == first["metrics"]["win_rate"]["value"]
    assert int(row["n"]) == first["n"]


def test_the_budget_is_what_the_ledger_counted(rows):
    own = [r for r in rows if r["method"] == "metaapo" and r["seed"] == "0" and r["metric"] == "win_rate"]
    own = [r for r in own if r["benchmark"] == "alpacaeval2"]
    sampled = [round(rate * PROMPTS) for rate in BASIC["metaapo"].rates]
    assert [int(r["annotations"]) for r in own] == [K * sum(sampled[: i + 1]) for i in range(3)]
    assert [float(r["annotation_ratio"]) for r in own] == pytest.approx([n / PROMPTS for n in sampled])
    assert float(own[-1]["annotation_ratio_total"]) == pytest.approx(sum(sampled) / (3 * PROMPTS))


def test_online_dpo_is_the_unit_and_sft_and_dpo_cost_nothing(rows):
    ratios = {r["method"]: float(r["annotation_ratio_total"]) for r in rows if r["iteration"] in ("0", "3")}
    assert ratios["online_dpo"] == 1.0
    assert ratios["dpo"] == ratios["sft"] == 0.0


def test_the_unit_is_k_of_online_dpo_even_for_a_method_with_another_k():
    rows = ledger([{"responses_scored": 40, "prompts": 10}, {"responses_scored": 0, "prompts": 10}], k=8)
    assert rows[0] == {"annotations": 40, "annotation_ratio": 0.5, "annotation_ratio_total": 0.5}
    assert rows[1] == {"annotations": 40, "annotation_ratio": 0.0, "annotation_ratio_total": 0.25}


def test_two_collections_give_the_same_bytes(experiment):
    first = collect.to_csv(collect.score_rows(experiment))
    assert first == collect.to_csv(collect.score_rows(experiment))


def test_it_needs_no_torch_and_no_data_frames():
    import subprocess
    import sys

    code = "import sys, reports.collect; print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_missing_run_is_named(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, seeds=(0,), questions=4))
    record = experiment.results / "runs/dpo/budget1.0/seed0/run.json"
    record.unlink()
    with pytest.raises(DataError, match=r"runs/dpo/budget1.0/seed0/run.json: no such file"):
        collect.collect(experiment)
    assert not (experiment.results / "scores.csv").exists()


def test_an_unfinished_run_is_named(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, seeds=(0,), questions=4))
    path = experiment.results / "runs/dpo/budget1.0/seed0/run.json"
    record = read_json(path)
    write_json(path, record | {"iterations": record["iterations"][:2]})
    with pytest.raises(DataError, match="holds 2 of 3 iterations"):
        collect.collect(experiment)


def test_a_score_of_no_run_is_named(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, seeds=(0,), questions=4))
    path = experiment.results / "scores/mtbench/gold.json"
    document = read_json(path)
    document["rows"][-1]["seed"] = 7
    write_json(path, document)
    with pytest.raises(DataError, match="dpo/budget1.0/seed7 iteration 3 does not belong to any run"):
        collect.collect(experiment)


def test_malformed_scores_are_named(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, seeds=(0,), questions=4))
    path = experiment.results / "scores/mtbench/gold.json"
    path.write_text(json.dumps({"benchmark": "mtbench"}), encoding="utf-8")
    with pytest.raises(DataError, match="key 'version' is missing"):
        collect.collect(experiment)
