"""The assay finds what a synthetic experiment was made with, and runs as part of the real workflow."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import copy_project, experiment_document
from synthetic_results import FakeMethod, write_results

from eval.checkpoints import benchmarks_of, judged_runs
from eval.planted import choose, gain_of_best, probability_of
from metaapo.config import ConfigError
from metaapo.data import DataError, read_json
from metaapo.experiment import Run, load, resolve
from reports import assay, claims, collect
from reports.runs import Results

WORLDS = (0, 1, 2, 3, 4, 5)
# Win rates in points by (method, budget)
TRUTH = {
    ("dpo", 1.0): 55.0,
    ("online_dpo", 1.0): 60.0,
    ("metaapo", 1.0): 62.0,
    ("mixing", 0.1): 56.0,
    ("mixing", 0.5): 58.0,
    ("mixing", 1.0): 62.0,
    ("oracle", 0.5): 61.0,
    ("oracle", 1.0): 70.0,
    ("oracle_weights", 0.5): 57.0,
    ("planted_0", 1.0): 60.0,
    ("planted_3", 1.0): 63.0,
    ("aa", 0.5): 58.0,
}
METHODS = {
    "dpo": FakeMethod(55, (0.0, 0.0, 0.0)),
    "online_dpo": FakeMethod(60),
    "metaapo": FakeMethod(62, (0.6, 0.5, 0.4), learns=True),
    "mixing": FakeMethod(58, config={"budget": [0.1, 0.5, 1.0]}),
    "oracle": FakeMethod(61, config={"budget": [0.5, 1.0]}),
    "oracle_weights": FakeMethod(57, config={"module": "oracle", "choose": "weights", "budget": [0.5]}),
}
SETTINGS = {"planted": {"of": "online_dpo", "points": [0, 3]}, "aa": "aa"}


def items(noise, rng, questions=60):
    """Values of every model and question after the last iteration; methods of a world share its luck."""
    easy, luck = rng.normal(0, 0.1, questions), rng.normal(0, 0.02, len(WORLDS))
    rows = []
    for (method, budget), truth in TRUTH.items():
        for seed in range(6 * len(WORLDS)) if method == "aa" else WORLDS:
            values = truth / 100 + luck[seed % len(WORLDS)] + easy + rng.normal(0, noise, questions)
            keys = {"method": method, "budget": budget, "seed": seed, "iteration": 3}
            rows += [keys | {"question": f"q{i}", "value": value} for i, value in enumerate(values)]
    return pd.DataFrame(rows).assign(length=10, category="lists")


def aims(rng):
    """Sampling that aims at the gain in iteration 3, that does not in 2, and that is constant in 1."""
    rows = []
    for seed in WORLDS:
        for iteration in (1, 2, 3):
            gain = rng.normal(0, 1, 100)
            p = {1: np.full(100, 0.5), 2: rng.random(100), 3: 1 / (1 + np.exp(-gain))}[iteration]
            keys = {"method": "metaapo", "budget": 1.0, "seed": seed, "iteration": iteration}
            rows += [keys | {"id": f"p{i}", "p_sample": p[i], "gain": gain[i]} for i in range(100)]
    return pd.DataFrame(rows)


def write_experiment(folder, noise=0.05, **changes):
    path = write_results(folder, METHODS, seeds=WORLDS, worlds=WORLDS, benchmarks=("pooled",), questions=20)
    document = yaml.safe_load(path.read_text()) | {"assay": SETTINGS} | changes
    document["methods"]["aa"] = {"module": "mixing", "budget": [0.5], "seeds": list(range(6 * len(WORLDS)))}
    document["methods"]["oracle_weights"]["module"] = "oracle"
    path.write_text(yaml.safe_dump(document))
    rng = np.random.default_rng(0)
    results = Results(load(path))
    with gzip.open(results.folder / "scores" / "pooled" / "gold.items.csv.gz", "wt") as file:
        items(noise, rng).to_csv(file, index=False)
    aims(rng).to_csv(results.folder / "aim.csv", index=False)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("assay"))


@pytest.fixture(scope="module")
def rows(results):
    return {row["name"]: row for row in assay.assay(results)}


def test_every_row_of_the_contract_is_there(rows):
    named = {"dose_response", "room_selection", "room_weights", "planted_0", "planted_3", "aa_supported", "aa_against"}
    numbered = {f"{kind}_iter{t}" for kind in ("spread", "aim") for t in (1, 2, 3)}
    assert set(rows) == named | numbered | {"smallest_effect"}
    for row in rows.values():
        assert list(row) == ["name", "value", "ci_low", "ci_high", "low", "high", "ok", "unit", "note"]


def test_the_dose_response_is_the_largest_budget_less_the_smallest(rows):
    row = rows["dose_response"]
    assert row["ci_low"] < 6 < row["ci_high"]
    assert (row["ok"], row["low"], row["unit"]) == (True, 2.0, "points")


def test_room_is_measured_at_the_budget_nearest_to_the_method_under_tests(rows):
    """MetaAPO annotates half of the prompts, so the oracle's 70 points at the full budget do not count."""
    for name, truth in (("room_selection", 3), ("room_weights", -1)):
        row = rows[name]
        assert row["ci_low"] < truth < row["ci_high"]
        assert row["ok"] is None
        assert "at a budget of 50%" in row["note"]


def test_the_verdict_on_a_planted_effect_is_in_its_note(rows):
    assert rows["planted_3"]["note"].startswith("supported: a true effect of 3 points over online_dpo")
    assert not rows["planted_0"]["note"].startswith("supported")
    assert rows["planted_3"]["ok"] is rows["planted_0"]["ok"] is True


def test_a_planted_effect_that_is_missed_is_not_as_required(tmp_path):
    noisy = {row["name"]: row for row in assay.assay(write_experiment(tmp_path, noise=0.8))}
    assert noisy["planted_3"]["ok"] is False
    assert noisy["smallest_effect"]["ok"] is False
    assert noisy["smallest_effect"]["value"] > 3


def test_a_method_seldom_beats_itself_and_the_interval_counts_runs(rows):
    for name in ("aa_supported", "aa_against"):
        row = rows[name]
        assert row["value"] <= row["high"]
        assert row["ok"] is True
        assert row["ci_high"] - row["ci_low"] > 4 * np.sqrt(0.025 * 0.975 / assay.SPLITS)


def test_an_unequal_pair_would_be_seen_by_the_aa_comparison():
    """If one run of each world is much better, many splits come out supported."""
    rng = np.random.default_rng(0)
    runs = [rng.normal(0, 1, (2, 50)) + [[5], [0]] for _ in range(4)]
    pairs = assay.random_splits([2] * 4, 400, rng)
    same_way = [all(a == 0 for a, _ in split) for split in pairs]
    tables = [np.array([of[a] - of[b] for of, (a, b) in zip(runs, split)]) for split in pairs]
    assert [bool(table.mean(axis=1).min() > 3) for table in tables] == same_way
    assert 0 < np.mean(same_way) < 0.2


def test_a_split_compares_two_different_runs_of_every_world():
    pairs = assay.random_splits([2, 3, 7], 2000, np.random.default_rng(1))
    assert pairs.shape == (2000, 3, 2)
    assert (pairs[..., 0] != pairs[..., 1]).all()
    for world, n in enumerate((2, 3, 7)):
        counts = np.unique(pairs[:, world], axis=0, return_counts=True)[1]
        assert len(counts) == n * (n - 1)  # every ordered pair, equally often
        assert counts.min() > 0.5 * 2000 / len(counts)


def test_the_interval_of_a_share_is_wider_if_its_splits_depend_on_few_runs():
    pairs = assay.random_splits([8, 8], 4000, np.random.default_rng(0))
    one_run = (pairs[:, 0] == 3).any(axis=1)  # decided by one run alone
    chance = np.random.default_rng(1).random(4000) < one_run.mean()
    widths = [np.diff(assay.share_interval(found, pairs))[0] for found in (one_run, chance)]
    assert widths[0] > 2 * widths[1]
    low, high = assay.share_interval(np.zeros(4000, bool), pairs)
    assert low == 0
    assert high > 0.1  # sixteen runs do not show that a share is 0


def test_aim_finds_sampling_that_follows_the_gain(rows):
    assert rows["aim_iter1"]["value"] is None
    assert "the same for every prompt" in rows["aim_iter1"]["note"]
    assert rows["aim_iter2"]["ci_low"] < 0 < rows["aim_iter2"]["ci_high"]
    assert rows["aim_iter3"]["value"] == pytest.approx(1)


def test_rank_correlations_equal_scipys():
    from scipy.stats import spearmanr

    x, y = np.random.default_rng(0).integers(0, 8, (2, 50))
    y = np.where(y == 0, -np.inf, y)  # prompts without an online pair rank last
    assert assay.rank_correlation(pd.Series(x), pd.Series(y)) == pytest.approx(spearmanr(x, y).statistic)


def test_spread_is_the_standard_deviation_over_prompts(rows):
    assert rows["spread_iter1"]["value"] == pytest.approx(0.1)  # the synthetic ledger alternates by 0.1


def test_the_smallest_effect_is_that_of_the_first_claim(results, rows):
    from reports.evidence import Logs

    parts = claims.estimate_parts(claims.CLAIMS[0], Logs(results, "gold"))
    largest = max(part.smallest_effect for part in parts if part.decides)
    assert rows["smallest_effect"]["value"] == pytest.approx(largest, rel=1e-6)


def test_an_experiment_without_instruments_has_the_remaining_rows(tmp_path):
    experiment = load(write_results(tmp_path, seeds=(0, 1), questions=8))
    collect.collect(experiment)
    names = {row["name"] for row in assay.assay(Results(experiment))}
    assert names == {"spread_iter1", "spread_iter2", "spread_iter3", "smallest_effect"}


# --- planting ---------------------------------------------------------------------------------------------------------


def test_the_expected_planted_effect_is_exact():
    rng = np.random.default_rng(0)
    values = [rng.random((300, 4)), rng.random((300, 4)) ** 2]
    p = probability_of(3, 100 * gain_of_best(values))
    effects = []
    for _ in range(400):
        chosen = [choose(of, p, rng.random(300)) for of in values]
        effects.append(100 * np.mean([of[np.arange(300), c] - of[:, 0] for of, c in zip(values, chosen)]))
    assert np.mean(effects) == pytest.approx(3, abs=4 * np.std(effects) / 20)


def test_no_effect_gives_the_first_answers():
    values = np.random.default_rng(0).random((50, 3))
    assert (choose(values, probability_of(0, 12.0), np.zeros(50)) == 0).all()
    assert probability_of(0, 0.0) == 0


def test_an_effect_beyond_the_best_answers_is_refused():
    with pytest.raises(DataError, match=r"5 points cannot be planted, since the best answers are only 4\.20 points"):
        probability_of(5, 4.2)


POOLED = {"benchmarks": ["pooled"]}


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ({"planted": {"of": "selm"}}, {}, r"assay\.planted\.of: unknown method 'selm'"),
        ({"aa": "dpo"}, {"seeds": [0], "evaluation": POOLED}, r"methods\.dpo\.seeds: an A/A comparison needs two"),
        ({"aa": "dpo"}, {}, r"assay\.aa: dpo must answer a primary benchmark"),
        ({}, {"methods": {"dpo": {"benchmarks": ["pooled"]}}}, r"methods\.dpo\.benchmarks: 'pooled' is not among"),
    ],
)
def test_an_assay_that_cannot_be_run_is_refused(section, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(experiment_document("x", assay=section, **changes))


def test_a_method_answers_only_the_benchmarks_that_its_entry_names():
    methods = {"dpo": {}, "aa": {"module": "mixing", "benchmarks": ["pooled"]}}
    evaluation = {"benchmarks": ["pooled", "mtbench"]}
    section = {"aa": "aa", "planted": {"of": "dpo", "points": [2]}}
    experiment = resolve(experiment_document("x", methods=methods, evaluation=evaluation, assay=section))
    of = {name: {Run.parse(run).method for run in judged_runs(experiment, name)} for name in experiment.benchmarks}
    assert of == {"pooled": {"dpo", "aa", "planted_2"}, "mtbench": {"sft", "dpo"}}
    asked = {name: benchmarks_of(experiment, Run(method=name, budget=1.0, seed=0)) for name in methods}
    assert asked == {"aa": ["pooled"], "dpo": ["pooled", "mtbench"]}


def test_a_run_starts_from_an_offline_run_of_its_world_if_that_has_no_run_with_its_seed():
    methods = {"dpo": {}, "mixing": {"budget": [0.5], "seeds": [0, 1, 2, 3], "train": {"start": "dpo"}}}
    experiment = resolve(experiment_document("x", methods=methods, world={"seeds": [5, 6]}))
    needed = [experiment.needs(Run(method="mixing", budget=0.5, seed=seed))[0].id for seed in range(4)]
    assert needed == [f"dpo/budget1.0/seed{seed}" for seed in (0, 1, 0, 1)]


# --- the workflow -----------------------------------------------------------------------------------------------------

SMALL = {
    "experiment": "small_assay",
    "seeds": [0, 1],
    "iterations": 1,
    "world": {"shipped": True, "pairs_per_iteration": 16, "questions": {"mixed": 12, "composed": 6, "two_turn": 4}},
    "train": {"batch_size": 8, "micro_batch_size": 8},
    "sampling": {"k": 3, "max_new_tokens": 40},
    "methods": {
        "online_dpo": {},
        "metaapo": {"t_meta": 2},
        "mixing": {"budget": [0.25, 1.0]},
        "oracle": {"budget": [0.25]},
        "aa": {"module": "mixing", "budget": [0.25]},
    },
    "assay": {"planted": {"of": "online_dpo", "points": [0, 3], "samples": 2}, "aa": "aa", "aim_prompts": 8},
    "evaluation": {"benchmarks": ["pooled"]},
    "health": {"enforce": False},
    "hardware": {"train": {"runs": 2}, "answer": {"runs": 2}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small assay, run by the real workflow; returns its results."""
    folder = copy_project(tmp_path_factory.mktemp("workflow"))
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL | {"results_dir": str(folder / "results")}))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(folder / "small.yaml")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return Results.load(folder / "small.yaml")


def test_the_workflow_writes_the_whole_assay(finished):
    names = {row["name"] for row in read_json(finished.folder / "assay.json")}
    fixed = {"dose_response", "room_selection", "planted_0", "planted_3", "aa_supported", "aa_against"}
    assert names == fixed | {"spread_iter1", "aim_iter1", "smallest_effect"}
    page = (finished.folder / "report" / "index.html").read_text()
    assert page.index("Could this experiment have found otherwise?") < page.index("Claim by claim")


def test_planted_answers_are_judged_and_scored_like_others(finished):
    found = finished.items("pooled", "gold").groupby("method")["value"].size()
    assert found["planted_0"] == found["planted_3"] == found["online_dpo"]
    record = read_json(finished.folder / "planted.json")
    (zero, three) = record["effects"]
    assert (zero["probability"], three["points"]) == (0, 3)
    assert three["probability"] == pytest.approx(3 / record["gain_of_best"])


def test_what_only_the_assay_compares_is_not_in_the_scores(finished):
    methods = set(finished.scores["method"])
    assert "mixing" in methods
    assert not methods & {"aa", "planted_0", "planted_3"}
