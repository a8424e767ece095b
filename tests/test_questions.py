"""Rank intervals and the answers to reviewers' questions, on experiments whose truth is known."""

import numpy as np
import pytest
from synthetic_results import BASIC, FakeMethod, everything, write_results

from eval import stats
from metaapo.experiment import load
from reports import collect, questions, ranks
from reports.runs import Results

WORLDS = (0, 1, 2, 3, 4, 5)


def made(folder, **truth):
    results = Results(load(write_results(folder, **truth)))
    collect.collect(results.experiment)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    methods = everything(metaapo=70.0, ppo=76.0)
    folder = tmp_path_factory.mktemp("asked")
    return made(folder, methods=methods, questions=24, seeds=WORLDS, worlds=WORLDS, seed_sd=0.3)


def answer(results, id):
    return next(q for q in questions.questions(results) if q.id == id)


def test_ranks_follow_scores_and_clear_differences_narrow_them(results):
    order = ranks.ranks(results)
    assert [row["rank"] for row in order] == list(range(1, len(order) + 1))
    assert all(row["low"] <= row["rank"] <= row["high"] for row in order)
    assert [(row["method"], row["low"], row["high"]) for row in order[:2]] == [("ppo", 1, 1), ("metaapo", 2, 2)]
    equal = [row for row in order if row["method"] not in ("ppo", "metaapo")]
    assert all((row["low"], row["high"]) == (3, len(order)) for row in equal)


def test_a_rank_interval_covers_the_true_rank_as_often_as_it_says():
    """Four methods with true means 0, 0, 0.3 and 1, over few worlds: the ranks of the two lowest are tied."""
    rng = np.random.default_rng(0)
    truth, covered = np.array([1.0, 0.3, 0.0, 0.0]), []
    allowed = {0: (1, 1), 1: (2, 2), 2: (3, 4), 3: (3, 4)}  # a tied method has every rank of its tie
    for _ in range(300):
        data = truth[:, None, None] + rng.normal(0, 0.3, (4, 6, 1)) + rng.normal(0, 1, (4, 6, 20))
        for i, (first, last) in allowed.items():
            found = [stats.mean_over_seeds_and_prompts(data[i] - data[j]) for j in range(4) if j != i]
            low, high = ranks.rank_interval([(e.value, e.p_value) for e in found])
            covered.append(low <= first and high >= last)
    assert np.mean(covered) >= 0.95


def test_the_probability_of_improvement_counts_worlds_with_an_exact_interval(results):
    found = {row["method"]: row for row in ranks.improvements(results)}
    assert (found["ppo"]["ahead"], found["ppo"]["n"]) == (0, 6)
    assert (found["dpo"]["ahead"], found["dpo"]["n"]) == (6, 6)
    assert found["dpo"]["low"] == pytest.approx(0.025 ** (1 / 6))
    assert found["dpo"]["high"] == 1


def test_without_the_method_under_test_there_are_ranks_alone(tmp_path):
    results = made(tmp_path, methods={"dpo": FakeMethod(54, (0, 0, 0)), "ipo": FakeMethod(53, (0, 0, 0))}, questions=6)
    found = ranks.ranking(results)
    assert found["ranks"]
    assert found["improvement"] is None
    assert {question.id for question in questions.questions(results)} == {"tuned", "compute"}


def test_an_experiment_of_one_method_has_no_ranking(tmp_path):
    assert ranks.ranking(made(tmp_path, methods={"dpo": FakeMethod(54, (0, 0, 0))}, questions=6)) is None


def test_tuning_is_read_from_the_trials_and_a_setting_that_was_not_tried_is_named(tmp_path):
    methods = {**BASIC, "online_dpo": FakeMethod(58, config={"train": {"lr": 0.123, "beta": 0.1}})}
    found = answer(made(tmp_path, methods=methods, questions=6), "tuned")
    assert "5 trials each" in found.answer
    assert "not among the trials" in found.answer
    assert "Online DPO" in found.answer.split("not among the trials:")[1]
    assert "Without trials of their own: Random selection." in found.answer
    rows = {row[0]: row for row in found.rows}
    assert rows["Online DPO"][1] == "0.123"


def test_the_untrained_map_is_applied_to_the_scores_that_were_logged(results):
    found = answer(results, "untrained")
    maps = results.maps[(results.maps["method"] == "metaapo") & (results.maps["iteration"] == 0)]
    ledger = results.annotations[results.annotations["method"] == "metaapo"]
    first = ledger[ledger["iteration"] == 1]
    curve = maps[maps["seed"] == 0].sort_values("score")
    expected = 100 * (1 - np.interp(first["offline_score"], curve["score"], curve["weight"])).mean()
    assert float(found.rows[0][1]) == pytest.approx(expected, abs=0.06)
    assert float(found.rows[0][2]) == pytest.approx(100 * first["sampled"].mean(), abs=0.06)
    assert "map untouched" in found.answer


def test_other_worlds_are_counted_or_said_to_be_missing(results, tmp_path):
    found = answer(results, "worlds").answer
    assert found.startswith("Each of 6 worlds")
    single = answer(made(tmp_path, questions=6), "worlds").answer
    assert single.startswith("Not tested")


def test_equal_compute_names_the_methods_that_cost_no_more_and_score_as_high(results):
    found = answer(results, "compute")
    assert "times the seconds of one of Online DPO" in found.answer
    seconds = [float(row[2]) for row in found.rows]
    assert seconds == sorted(seconds)
    mine = next(row for row in found.rows if row[0] == "MetaAPO")
    ahead = [
        r[0]
        for r in found.rows
        if r[0] != "MetaAPO" and float(r[2]) <= float(mine[2]) and float(r[1]) >= float(mine[1])
    ]
    assert all(name in found.answer for name in ahead)


def test_departures_name_each_switch_and_what_was_changed(tmp_path):
    methods = {
        "dpo": FakeMethod(54, (0, 0, 0)),
        "metaapo": FakeMethod(60, (0.6, 0.5, 0.5), config={"fidelity": {"ties": "official-code"}}),
        "by_code": FakeMethod(60, (0.6, 0.5, 0.5), config={"module": "metaapo", "fidelity": "official-code"}),
    }
    found = answer(made(tmp_path, methods=methods, questions=6), "departures")
    assert "except for ties" in found.answer
    assert "data and scale" in found.answer
    assert {row[0]: row[1] for row in found.rows}["ties"] == "official-code"
    assert {row[0]: row[2] for row in found.rows}["score"] == "by code: official-code"
