"""The paper's numbers are data: whole, in range, and about methods and benchmarks that exist here."""

import pytest

from metaapo import PROJECT
from metaapo.benchmarks import known_benchmarks
from metaapo.data import read_yaml
from metaapo.method import known_methods
from reports import paper

PUBLISHED = read_yaml(PROJECT / "config" / "published" / "llama3.1-8b.yaml", "published numbers")


@pytest.mark.parametrize("quantity", ["win_rate", "annotation_ratio"])
def test_the_first_figure_has_every_iteration_of_its_three_methods(quantity):
    figure = PUBLISHED["figure_1"][quantity]
    assert set(figure) == {"metaapo", "online_dpo", "selm"} <= set(known_methods())
    assert {len(values) for values in figure.values()} == {3}
    assert all(0 < value < 120 for values in figure.values() for value in values)


def test_the_report_shows_the_same_numbers():
    figure = PUBLISHED["figure_1"]
    expected = {m: (tuple(figure["win_rate"][m]), tuple(figure["annotation_ratio"][m])) for m in figure["win_rate"]}
    assert expected == paper.FIGURE_1


def test_the_paper_s_saving_is_the_mean_of_its_ratios():
    ratios = PUBLISHED["figure_1"]["annotation_ratio"]["metaapo"]
    assert sum(ratios) / 3 == pytest.approx(58.0, abs=0.1)


def test_tables_name_benchmarks_of_ours():
    assert set(PUBLISHED["table_of_llama"]["sft"]) <= set(known_benchmarks())
