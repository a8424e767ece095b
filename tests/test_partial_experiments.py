"""An experiment without MetaAPO, without online methods or without offline ones still gets a complete report."""

import json

import pytest
from synthetic_results import FakeMethod, write_results

from eval.grade import grade
from metaapo.data import read_json
from metaapo.experiment import load
from reports import figures, page, tables
from reports.__main__ import build
from reports.runs import Results

NOTHING, ALL = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
EXPERIMENTS = {
    "offline methods only": {"dpo": FakeMethod(54, NOTHING), "my_dpo": FakeMethod(55, NOTHING)},
    "no MetaAPO": {"dpo": FakeMethod(54, NOTHING), "online_dpo": FakeMethod(58), "selm": FakeMethod(57)},
    "one online method": {"online_dpo": FakeMethod(58, ALL)},
}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def results(request, tmp_path_factory):
    methods = EXPERIMENTS[request.param]
    path = write_results(tmp_path_factory.mktemp("partial"), methods=methods, seeds=(0,), questions=8)
    experiment = load(path)
    grade(experiment)
    build(experiment)
    return Results(experiment)


def test_it_has_a_page_with_every_method(results):
    html = (results.folder / "report" / "index.html").read_text(encoding="utf-8")
    for method in results.experiment.methods:
        assert f">{tables.name_of(method)}<" in html


def test_its_tables_have_a_row_for_every_method(results):
    rows = [head for head, _ in tables.main_table(results, "gold").rows]
    assert rows == ["SFT", *map(tables.name_of, results.experiment.methods)]


def test_its_figures_are_those_that_need_no_meta_learner(results):
    drawn = {figure.name for figure in figures.draw(results)}
    assert {"budget", "curves", "training", "drift", "overoptimisation", "costs"} <= drawn
    assert not {"meta_map", "sampling_rate", "ablations"} & drawn


def test_no_claim_is_decided_and_each_says_what_is_missing(results):
    for record in read_json(results.folder / "claims.json"):
        assert record["verdict"] == "not tested"
        assert record["missing"][0] == "metaapo"


def test_its_health_check_needs_a_signal_from_the_plain_methods_that_it_trains(results):
    names = [check["name"].split()[0] for check in read_json(results.folder / "health.json")["checks"]]
    for method in ("dpo", "online_dpo"):
        assert (method in names) == (method in results.experiment.methods)


@pytest.mark.parametrize("name", ["results", "budget"])
def test_the_cells_of_its_notebooks_run(name, results, monkeypatch, capsys):
    monkeypatch.chdir(page.HERE)
    notebook = json.loads((page.HERE / f"{name}.ipynb").read_text(encoding="utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}.ipynb", "exec"), names)
            if cell["metadata"].get("tags") == ["parameters"]:
                names["config"] = str(results.folder.parents[1] / "config.yaml")
    assert names["results"].folder == results.folder
