"""The registered plan: written first, compared with what was run, and of no use to whoever edits it."""

import gzip
import json

import pytest
import yaml
from synthetic_results import everything, write_results

from eval.grade import grade
from eval.score import score_benchmark
from metaapo.data import DataError, read_json, write_bytes, write_json
from metaapo.experiment import load
from reports import cards, claims, figures, registration
from reports.__main__ import build
from reports.registration import LOCK, check_scores, deviations, read_lock, register, with_deviations
from reports.runs import Results


@pytest.fixture
def config(tmp_path):
    return write_results(tmp_path, seeds=(0, 1), iterations=1, questions=6, benchmarks=("pooled",))


@pytest.fixture
def registered(config):
    """An experiment whose plan was registered before its runs, which bear no date."""
    experiment = load(config)
    register(experiment)
    lock = read_json(experiment.results / LOCK)
    write_json(experiment.results / LOCK, lock | {"runs_before": []})
    return experiment


def changed(config, **sections):
    document = yaml.safe_load(config.read_text())
    for key, value in sections.items():
        document[key] = document.get(key, {}) | value if isinstance(value, dict) else value
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    return load(config)


def test_an_experiment_that_ran_as_planned_has_no_deviation(registered):
    assert deviations(registered) == []


def test_without_a_plan_the_report_says_that_none_was_registered(config):
    assert deviations(load(config)) is None


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {"beta": 0.3}}, "settings.train.beta: planned 0.2, now 0.3"),
        ({"seeds": [0, 1, 2]}, "replicates.seeds: planned [0, 1], now [0, 1, 2]"),
        ({"seeds": [1, 0]}, "replicates.seeds: planned [0, 1], now [1, 0]"),
        ({"design": {"looks": [2]}}, "looks.looks: planned [], now [2]"),
        ({"design": {"spending": "pocock"}}, 'looks.spending: planned "obrien_fleming", now "pocock"'),
        ({"world": {"label_tau": 0.5}}, "settings.world.label_tau: planned 0.2, now 0.5"),
        ({"methods": {"kto": {}}}, "settings.methods.kto.budget: planned nothing, now [1.0]"),
    ],
)
def test_each_setting_that_differs_from_the_plan_is_a_deviation(registered, config, sections, expected):
    found = deviations(changed(config, **sections))
    assert expected in found
    assert all(line.split(":")[0].startswith(expected.split(".")[0]) for line in found)


def test_where_it_runs_is_no_deviation(registered, config):
    assert deviations(changed(config, hardware={"train": {"runs": 2}}, estimate={"gpu": "H100-80GB"})) == []


def test_a_key_that_came_after_the_plan_is_a_deviation_only_where_it_changes_something(registered, config, monkeypatch):
    def without_shown(experiment):
        plan = plan_of(experiment)
        del plan["settings"]["world"]["shown"]
        return plan

    plan_of = registration.plan_of
    with monkeypatch.context() as earlier:
        earlier.setattr(registration, "plan_of", without_shown)
        (registered.results / LOCK).unlink()
        register(registered)
    lock = read_json(registered.results / LOCK)
    write_json(registered.results / LOCK, lock | {"runs_before": []})
    assert deviations(registered) == []
    assert deviations(changed(config, world={"shown": 0.75})) == ["settings.world.shown: planned nothing, now 0.75"]


def test_a_changed_claim_is_a_deviation_beside_that_claim_alone(registered, monkeypatch):
    easier = [
        claims.replace(claim, statement="MetaAPO beats some baseline.") if claim.id == "C1" else claim
        for claim in claims.CLAIMS
    ]
    monkeypatch.setattr(registration, "CLAIMS", easier)
    first, second = with_deviations([{"id": "C1"}, {"id": "C2"}], registered)
    assert len(first["deviations"]) == 1
    assert first["deviations"][0].startswith("claims.C1.statement: planned ")
    assert second["deviations"] == []


def test_a_changed_margin_or_level_is_a_deviation(registered, monkeypatch):
    monkeypatch.setitem(registration.MARGINS, "pooled", 0.5)
    monkeypatch.setattr(registration, "ALPHA", 0.05)
    assert deviations(registered) == [
        "margins.pooled: planned 1.0, now 0.5",
        "tests.one_sided_level: planned 0.025, now 0.05",
    ]


@pytest.mark.parametrize("section", ["claims", "margins", "endpoint", "tests", "looks", "replicates", "settings"])
def test_a_plan_that_was_edited_stops_the_report(registered, section):
    path = registered.results / LOCK
    lock = read_json(path)
    lock["plan"][section] = None
    write_json(path, lock)
    with pytest.raises(DataError, match=f"{section} changed since the plan was registered"):
        deviations(registered)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"plan": {}}', b'{"plan": 1, "sha256": 2}'])
def test_a_file_that_is_no_plan_is_reported_in_a_sentence(tmp_path, content):
    write_bytes(tmp_path / LOCK, content)
    with pytest.raises(DataError, match=str(tmp_path)):
        read_lock(tmp_path / LOCK)


def test_a_plan_that_came_after_the_first_run_is_a_deviation(config):
    experiment = load(config)
    register(experiment)  # the runs are there already
    assert "after 8 training runs had finished" in deviations(experiment)[0]


def test_a_plan_written_anew_after_training_is_betrayed_by_the_runs_dates(registered):
    path = registered.run_path(registered.runs()[0]) / "run.json"
    write_json(path, read_json(path) | {"finished": "2020-01-01T00:00:00Z"})
    assert "after 1 training runs had finished, such as dpo/budget1.0/seed0" in deviations(registered)[0]


# --- score files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(registered):
    for benchmark in registered.benchmarks:
        score_benchmark(registered, benchmark, "gold")
    return registered


def test_score_files_as_they_were_written_pass(scored):
    check_scores(scored)


def edit_items(folder):
    path = folder / "scores/pooled/gold.items.csv.gz"
    write_bytes(path, gzip.compress(gzip.decompress(path.read_bytes()).replace(b",0.", b",0.9", 1)))


def edit_score(folder):
    path = folder / "scores/pooled/gold.json"
    document = read_json(path)
    document["rows"][0]["metrics"]["win_rate"]["value"] += 5
    write_json(path, document)


def drop_digest(folder):
    path = folder / "scores/pooled/gold.json"
    document = read_json(path)
    del document["sha256"]
    write_json(path, document)


def edit_judgments(folder):
    path = folder / "judgments/pooled/gold/dpo/budget1.0/seed0/iter1.jsonl"
    write_bytes(path, path.read_bytes().replace(b'"preference": 1.', b'"preference": 2.'))


@pytest.mark.parametrize("edit", [edit_items, edit_score, drop_digest, edit_judgments])
def test_an_edited_score_stops_the_report_and_the_message_says_what_to_do(scored, edit):
    edit(scored.results)
    with pytest.raises(DataError, match="changed since .* scored; delete .* and run the workflow again"):
        build(scored)


# --- beside the verdict --------------------------------------------------------------------------------------------


def test_a_deviation_stands_beside_the_verdict_on_the_page_in_claims_json_and_in_the_terminal(
    scored, config, monkeypatch, capsys
):
    experiment = changed(config, train={"beta": 0.3})
    grade(experiment)
    monkeypatch.setattr(figures, "draw", lambda results: [])
    build(experiment)
    records = read_json(experiment.results / "claims.json")
    line = "settings.train.beta: planned 0.2, now 0.3"
    assert all(record["deviations"] == [line] for record in records)
    html = (experiment.results / "report" / "index.html").read_text(encoding="utf-8")
    assert html.count(f"Deviation from the registered plan: {line}.") == len(records)
    monkeypatch.setattr("sys.argv", ["reports.claims", "--config", str(config)])
    claims.main()
    assert capsys.readouterr().out.count(f"  deviation: {line}\n") == len(records)
    assert json.loads((experiment.results / "claims.json").read_text()) == records


# --- looks ---------------------------------------------------------------------------------------------------------


def test_the_report_tests_each_look_on_its_own_worlds(tmp_path):
    """A late world that contradicts the first ones does not change what they decided."""
    config = write_results(
        tmp_path,
        methods=everything(metaapo=75),
        seeds=tuple(range(8)),
        worlds=tuple(range(8)),
        iterations=2,
        questions=12,
        benchmarks=("pooled",),
    )
    experiment = changed(config, design={"looks": [6, 8], "look": 2})
    assert [len(experiment.at_look(k).runs()) for k in (1, 2)] == [60, 80]
    results = Results(experiment)
    from reports import collect

    collect.collect(experiment)
    first = claims.Logs(Results(experiment.at_look(1)), "gold").contrast("metaapo", "dpo", "pooled", "win_rate")
    second = claims.Logs(results, "gold").contrast("metaapo", "dpo", "pooled", "win_rate")
    assert (len(first), len(second)) == (6, 8)
    assert (second[:6] == first).all()
    record = next(record for record in claims.verdicts(results) if record["id"] == "C3")
    assert record["verdict"] == "supported"
    assert record["looks"]["decided"] in (6, 8)
    assert record["n_seeds"] == record["looks"]["decided"]
    view = cards.claim_view(record)
    assert view["standing"] == f", decided after {record['looks']['decided']} worlds"
