"""`reports.compare`: paired differences with intervals between experiments, methods or judges, as one page."""

import re

import pytest
from synthetic_results import BASIC, write_results

from metaapo.data import DataError
from metaapo.experiment import load, write_resolved
from reports import collect, compare
from reports.evidence import Logs
from reports.runs import Results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    truth = {"methods": BASIC, "questions": 12, "seeds": (0, 1, 2), "judges": ("gold", "other")}
    experiment = load(write_results(tmp_path_factory.mktemp("compare"), **truth))
    write_resolved(experiment)
    collect.collect(experiment)
    return experiment.results


def side(folder, rest=""):
    return compare.Side.parse(f"{folder}{rest}")


def test_two_methods_differ_as_the_verdicts_see_them(folder):
    rows = compare.compare(side(folder, ":metaapo"), side(folder, ":dpo"))
    row = next(row for row in rows if row.benchmark == "alpacaeval2")
    table = Logs(Results.load(folder / "config.yaml"), "gold").contrast("metaapo", "dpo", "alpacaeval2", "win_rate")
    assert row.estimate.value == pytest.approx(table.mean())
    assert row.left - row.right == pytest.approx(row.estimate.value)
    assert row.estimate.low < row.estimate.value < row.estimate.high
    assert row.per_seed == pytest.approx(table.mean(axis=1))


def test_an_experiment_is_the_same_as_itself(folder):
    rows = compare.compare(side(folder), side(folder))
    assert {row.title for row in rows} == {"DPO", "Online DPO", "MetaAPO", "Random selection"}
    assert all(row.estimate.value == 0 for row in rows)
    assert compare.headline(rows) == "Both sides are the same."


def test_two_judges_of_the_same_answers_are_compared(folder):
    left, right = side(folder, "::gold"), side(folder, "::other")
    rows = compare.compare(left, right)
    assert any(row.estimate.value != 0 for row in rows)
    page = compare.page(left, right, rows)
    assert "judge other" in page
    assert not re.search(r'(src|href)="(?!data:,)', page)


def test_a_side_that_does_not_exist_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="has no 'ppo'; choose one of dpo"):
        side(folder, ":ppo")
    with pytest.raises(DataError, match="finished experiment"):
        side(tmp_path)
