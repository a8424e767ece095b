"""The budget curve: where it reaches a score, its area, and what is said where the answer lies beyond the budgets."""

import math

import numpy as np
import pytest
from synthetic_results import FakeMethod, write_results

from metaapo.data import read_json, write_json
from metaapo.experiment import load
from reports import collect, curve, tables
from reports.curve import _order_statistics, common_range, crossing, mean_over_log, reach
from reports.runs import Results

LINE = [(0.1, 50.0), (1.0, 60.0)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (55.0, (math.sqrt(0.1), "")),  # half-way on a log scale
        (60.0, (1.0, "")),
        (49.0, (0.1, "below")),
        (61.0, (1.0, "above")),
    ],
)
def test_a_curve_reaches_a_score_by_interpolation_over_log_annotations(target, expected):
    assert crossing(LINE, target) == (pytest.approx(expected[0]), expected[1])


def test_the_first_crossing_counts_where_a_curve_turns_back():
    assert crossing([(0.1, 50.0), (0.2, 58.0), (0.5, 54.0), (1.0, 60.0)], 56.0)[0] < 0.2


def curves(*shifts):
    return {w: [(ratio, score + shift) for ratio, score in LINE] for w, shift in enumerate(shifts)}


def test_the_median_over_worlds_survives_censored_ones():
    found = reach(curves(0, 0, 0, 0, 20, -20), dict.fromkeys(range(6), 55.0))
    assert found["value"] == pytest.approx(math.sqrt(0.1))
    assert (found["below"], found["above"], found["bound"]) == (1, 1, "")
    assert (found["ci_low"], found["ci_high"]) == (None, None)  # the ends are the censored worlds
    assert found["coverage"] == pytest.approx(1 - 2 / 64)


def test_a_median_beyond_the_budgets_is_a_bound():
    never = reach(curves(-20, -20, -20, 0), dict.fromkeys(range(4), 55.0))
    assert (never["value"], never["bound"], never["ci_high"]) == (1.0, "above", None)
    at_once = reach(curves(20, 20, 20, 0), dict.fromkeys(range(4), 55.0))
    assert (at_once["value"], at_once["bound"], at_once["ci_low"]) == (0.1, "below", None)


def test_the_interval_covers_the_median_as_often_as_it_says():
    """Exact for any distribution: here a skewed one."""
    rng = np.random.default_rng(0)
    for n in (3, 6, 9, 12):
        low, high, coverage = _order_statistics(n)
        drawn = np.sort(rng.exponential(size=(4000, n)))
        hit = np.mean((drawn[:, low] <= math.log(2)) & (math.log(2) <= drawn[:, high]))
        assert hit == pytest.approx(coverage, abs=0.02)
        assert (coverage >= 0.95) == (n >= 6)


def test_the_area_is_the_mean_over_log_annotations_within_the_common_range():
    assert mean_over_log(LINE, 0.1, 1.0) == pytest.approx(55)
    assert mean_over_log([(0.1, 50.0), (0.2, 58.0), (1.0, 58.0)], 0.2, 1.0) == pytest.approx(58)
    assert common_range([{0: LINE}, {0: [(0.25, 1.0), (0.6, 2.0)]}]) == (0.25, 0.6)
    assert common_range([{0: [(0.1, 1.0), (0.2, 2.0)]}, {0: [(0.5, 1.0), (1.0, 2.0)]}]) is None


def swept(folder, budgets=(0.25, 0.5, 1.0), **truth):
    config = {"budget": list(budgets)}
    methods = {
        "dpo": FakeMethod(54, (0.0, 0.0, 0.0)),
        "online_dpo": FakeMethod(58, config=config),
        "metaapo": FakeMethod(66, (0.9, 0.9, 0.9), learns=True, config=config),
    }
    truth = {"seeds": (0, 1, 2), "questions": 40, "benchmarks": ("pooled",), "noise": 0.02} | truth
    results = Results(load(write_results(folder, methods, **truth)))
    collect.collect(results.experiment)
    curve.write(results)
    return results


def test_an_experiment_with_one_budget_has_no_curve(tmp_path):
    results = swept(tmp_path, budgets=(1.0,))
    assert not (results.folder / "curve.json").exists()
    assert tables.curve_table(results) is None
    write_json(results.folder / "curve.json", {"old": True})
    curve.write(results)
    assert results.curve is None


def test_the_curve_is_read_from_capped_runs_and_shown_as_a_table(tmp_path):
    results = swept(tmp_path)
    document = read_json(results.folder / "curve.json")
    assert document["target"] == "online_dpo"
    ours, theirs = (next(r for r in document["methods"] if r["method"] == m) for m in ("metaapo", "online_dpo"))
    assert [point["budget"] for point in ours["points"]] == [0.25, 0.5, 1.0]
    assert [round(point["ratio"], 2) for point in ours["points"]] == [0.25, 0.5, 0.9]
    # every synthetic budget has the method's full score, so MetaAPO is above Online DPO at its smallest
    assert (ours["reach"]["bound"], ours["reach"]["below"]) == ("below", 3)
    assert ours["reach"]["value"] == pytest.approx(0.25)
    assert ours["area_difference"]["value"] == pytest.approx(8, abs=1.5)
    assert ours["area_difference"]["ci_low"] > 0
    assert theirs["area_difference"] is None
    assert document["range"] == pytest.approx([0.25, 0.896], abs=0.01)
    table = tables.curve_table(results)
    assert dict(table.rows)["MetaAPO"][0].text() == "≤ 25.0 [, 25.0]"
    assert "MetaAPO: 3 of 3 at or below the smallest budget, 0 never" in table.note
    assert "≤" in table.to_html()
    assert r"$\leq$" in table.to_latex()


def test_worlds_are_the_unit_if_there_are_several(tmp_path):
    results = swept(tmp_path, seeds=(0, 1, 2, 3), worlds=(0, 1))
    document = results.curve
    assert document["replicates"] == "worlds"
    assert {row["reach"]["n"] for row in document["methods"]} == {2}
