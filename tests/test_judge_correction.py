"""A judge's error in the interval: corrected by gold labels, or with several judges as a source of variance."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from eval import judge_correction
from eval.judge_correction import correct, corrected_mean, over_judges, read_values, sample
from metaapo.data import DataError
from metaapo.worlds.tiny.gold import TAU

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import judge_correction as simulation  # noqa: E402


def write(path, rows, head=("model", "question", "value")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def labelled(truth, n):
    return np.where(np.arange(len(truth)) < n, truth, np.nan)


def biased(n, seed=0, bias=0.2, noise=0.1):
    """Gold values and a judge that is too kind."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 0.8, n)
    return truth, truth + bias + rng.normal(0, noise, n)


# --- gold labels ---------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_textbook_formula():
    truth, judge = biased(300)
    found = corrected_mean(judge, labelled(truth, 60))
    paired, gold, others = judge[:60], truth[:60], judge[60:]
    weight = np.cov(paired, gold)[0, 1] / judge.var(ddof=1) / (1 + 60 / 240)
    assert found.weight == pytest.approx(min(weight, 1))
    assert found.corrected.value == pytest.approx(gold.mean() + weight * (others.mean() - paired.mean()))
    assert found.bias == pytest.approx(0.2, abs=0.05)
    assert found.corrected.n_prompts == 300


def test_its_standard_error_is_the_spread_over_fresh_samples():
    found = [corrected_mean(j, labelled(t, 60)).corrected for t, j in (biased(300, s) for s in range(600))]
    spread = np.std([estimate.value for estimate in found])
    assert np.mean([estimate.stderr for estimate in found]) == pytest.approx(spread, rel=0.1)


def test_in_the_tiny_world_corrected_intervals_cover_the_gold_mean_and_a_biased_judges_own_do_not():
    rewards, lengths = simulation.comparisons(2500)
    judged = simulation.judges(rewards, lengths)
    truth = expit(rewards / TAU)
    for name, values in judged.items():
        coverage = simulation.coverage(truth, values, 100, replicates=400)
        assert 0.92 <= coverage["corrected"] <= 0.97
        assert (coverage["judge"] < 0.1) == (name != "noisy")
        assert coverage["width"] < {"noisy": 0.7, "likes length": 0.95, "coin": 1.03}[name]


def test_a_useless_judge_leaves_the_labels_alone():
    truth, _ = biased(300)
    found = corrected_mean(np.full(300, 0.5), labelled(truth, 60))
    assert found.weight == 0
    assert found.corrected.value == pytest.approx(found.gold.value)
    worse_than_useless = corrected_mean(1 - truth, labelled(truth, 60))
    assert worse_than_useless.weight == 0


def test_a_perfect_judge_makes_its_unlabelled_judgments_count_in_full():
    truth, _ = biased(2000)
    found = corrected_mean(truth, labelled(truth, 200))
    assert found.corrected.stderr == pytest.approx(found.judge.stderr, rel=0.05)


def test_unreadable_judgments_are_left_out():
    truth, judge = biased(300)
    judge[[3, 250]] = np.nan
    found = corrected_mean(judge, labelled(truth, 60))
    assert (found.n_labelled, found.corrected.n_prompts) == (59, 298)


def test_the_command_goes_from_a_random_sample_to_a_corrected_difference(tmp_path, capsys):
    truth, judge = biased(300)
    scores = [[m, f"q{i}", v - 0.1 * (m == "b")] for i, v in enumerate(judge) for m in "ab"]
    given, asked, filled = write(tmp_path / "scores.csv", scores), tmp_path / "ask.csv", tmp_path / "gold.csv"
    assert judge_correction.main(["sample", "--scores", str(given), "--n", "80", "--out", str(asked)]) == 0
    rows = list(csv.DictReader(asked.open()))
    assert len(rows) == 160
    assert {row["value"] for row in rows} == {""}
    write(
        filled, [[r["model"], r["question"], truth[int(r["question"][1:])] - 0.1 * (r["model"] == "b")] for r in rows]
    )
    capsys.readouterr()
    assert judge_correction.main(["correct", "--scores", str(given), "--gold", str(filled)]) == 0
    found = json.loads(capsys.readouterr().out)["models"]["a"]
    assert found["corrected"]["ci_low"] < truth.mean() < found["corrected"]["ci_high"]
    assert found["judge"]["ci_low"] > truth.mean() + 0.1
    assert (found["n_labelled"], found["n_questions"]) == (80, 300)
    against = correct(read_values(given), read_values(filled), "b")["models"]
    assert list(against) == ["a"]
    assert against["a"]["corrected"]["value"] == pytest.approx(0.1)


def test_our_own_items_are_read_with_their_runs_as_models(tmp_path):
    head = ("method", "budget", "seed", "iteration", "question", "value", "length")
    path = write(tmp_path / "items.csv", [["dpo", "1.0", 0, 3, "q", 0.5, 9], ["dpo", "1.0", 0, 3, "r", "", 9]], head)
    assert read_values(path) == {"dpo/budget1.0/seed0/iter3": {"q": 0.5}}


def test_labels_that_were_not_drawn_at_random_are_noticed():
    truth, judge = biased(300)
    order = np.argsort(judge)
    scores = {"m": {f"q{i}": float(judge[i]) for i in order}}
    gold = {"m": {f"q{i}": float(truth[i]) for i in order[:60]}}
    assert any("drawn at random" in note for note in correct(scores, gold)["notes"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correct({"m": {"q": 1.0}}, {"k": {"q": 1.0}}), "none of the scored models"),
        (lambda: correct({"m": {"q": 1.0}}, {"m": {"q": 1.0}}), "model m: a correction needs at least 10 labelled"),
        (lambda: correct({"m": {"q": 1.0}}, {"m": {"q": 1.0}}, "k"), "model 'k': not in the scores"),
        (lambda: sample({"m": {"q": 1.0}}, 50), "--n is 50"),
        (lambda: over_judges([{"m": {"q": 1.0}}]), "two or more judges"),
        (lambda: over_judges([{"m": {"q": 1.0}}, {"m": {"r": 1.0}}]), "no model has two questions"),
        (lambda: read_values("/nowhere.csv"), "cannot be read"),
    ],
)
def test_bad_input_is_reported(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["m", "q", "high"]], ":2: value is 'high'"),
        ([["m", "q", "nan"]], ":2: value is 'nan'"),
        ([["m", "q", "1"], ["m", "q", "0"]], ":3: question 'q' of this model appears twice"),
        ([["m", "q", ""]], "no value"),
    ],
)
def test_bad_files_are_reported_with_their_line(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_values(write(tmp_path / "f.csv", rows))


# --- several judges ------------------------------------------------------------------------------------------------


def opinions(rng, judges=4, questions=200):
    """Judges that differ in kindness by 0.05, on questions that differ by 0.2."""
    kindness, quality = rng.normal(0, 0.05, (judges, 1)), rng.normal(0, 0.2, (1, questions))
    table = 0.5 + kindness + quality + rng.normal(0, 0.1, (judges, questions))
    return [{"m": {str(q): float(v) for q, v in enumerate(row)}} for row in table]


def test_an_interval_over_judges_covers_the_mean_of_all_judges():
    rng = np.random.default_rng(0)
    found = [over_judges(opinions(rng))["models"]["m"] for _ in range(400)]
    assert 0.91 <= np.mean([f["ci_low"] <= 0.5 <= f["ci_high"] for f in found]) <= 0.98
    assert np.mean([f["sd_judges"] ** 2 for f in found]) ** 0.5 == pytest.approx(0.05, rel=0.1)
    assert np.mean([f["sd_rest"] for f in found]) == pytest.approx(0.1, rel=0.05)


def test_judges_that_differ_in_kindness_alone_agree_on_differences_between_models():
    scores = [{"a": {q: v + 0.1 for q, v in s["m"].items()}, "b": s["m"]} for s in opinions(np.random.default_rng(1))]
    difference = over_judges(scores, "b")["models"]["a"]
    assert difference["value"] == pytest.approx(0.1)
    assert difference["sd_judges"] == pytest.approx(0, abs=1e-9)
