"""The report: tables trace to judgments, figures need their data, verdicts come from files, the page is one file."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from synthetic_results import BASIC, FakeMethod, everything, write_results

from eval.grade import grade
from eval.score import score_benchmark
from metaapo.data import DataError, read_json, read_jsonl, sha256_file, write_json, write_text
from metaapo.experiment import load, write_resolved
from metaapo.worlds.tiny.gold import RUBRIC
from reports import (
    cards,
    claims,
    collect,
    drawing,
    evidence,
    figures,
    first_screen,
    health_gate,
    inline,
    mechanism,
    page,
    replay,
    runs,
    samples,
    svg,
    tables,
)
from reports.__main__ import build
from reports.runs import Results


def scored(folder, **truth):
    """Results on synthetic judgments, scored by the real scorers."""
    experiment = load(write_results(folder, **truth))
    write_resolved(experiment)
    for benchmark in experiment.benchmarks:
        for judge in experiment.judges:
            score_benchmark(experiment, benchmark, judge)
    grade(experiment)
    return Results(experiment)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    found = scored(tmp_path_factory.mktemp("report"), questions=24, failed=1)
    build(found.experiment)
    return found


@pytest.fixture(scope="module")
def html(results):
    return (results.folder / "report" / "index.html").read_text(encoding="utf-8")


def with_scores(folder, **truth) -> Results:
    """Results with synthetic scores too: fast, for tests that do not involve scorers."""
    results = Results(load(write_results(folder, **truth)))
    collect.collect(results.experiment)
    return results


# --- tables --------------------------------------------------------------------------------------------------------


def win_rate_of_annotations(path):
    preferences = [row["preference"] for row in read_json(path) if row["preference"] is not None]
    return 100 * np.mean([p - 1 for p in preferences])


def win_rate_of_games(path):
    won = []
    for row in read_jsonl(path):
        labels = [game["score"] for game in row["games"]]
        if None not in labels:  # game 1 has A = baseline, game 2 has A = the model
            won += [labels[0] == "B>A", labels[1] == "A>B"]
    return 100 * np.mean(won)


def mean_grade(path):
    return np.mean([row["score"] for row in read_jsonl(path) if row["score"] >= 0])


RECOMPUTE: dict[str, tuple[str, str, Callable]] = {
    "AlpacaEval 2 WR": ("alpacaeval2", "json", win_rate_of_annotations),
    "Arena-Hard WR": ("arenahard", "jsonl", win_rate_of_games),
    "MT-Bench": ("mtbench", "jsonl", mean_grade),
}


@pytest.mark.parametrize("column", RECOMPUTE)
@pytest.mark.parametrize("method", ["dpo", "metaapo"])
def test_a_cell_of_the_main_table_can_be_recomputed_from_the_raw_judgments_of_the_runs_it_names(
    results, column, method
):
    table = tables.main_table(results, "gold")
    cells = dict(table.rows)[tables.name_of(method)]
    cell = cells[table.columns.index(column)]
    benchmark, suffix, compute = RECOMPUTE[column]
    folder = results.folder / "judgments" / benchmark / "gold"
    values = [compute(folder / run / f"iter3.{suffix}") for run in cell.runs]
    assert len(values) == 3
    assert cell.value == pytest.approx(np.mean(values), abs=1e-9)


def test_every_scored_cell_names_its_runs_in_the_csv(results):
    rows = tables.main_table(results, "gold").to_csv().splitlines()[1:]
    trained = [row for row in rows if not row.startswith("SFT")]
    assert trained
    assert all(re.search(r"/budget1\.0/seed0 .*/seed1 .*/seed2$", row) for row in trained)


def test_partial_scores_are_marked(results):
    table = tables.main_table(results, "gold")
    cells = dict(table.rows)["MetaAPO"]
    assert tables.PARTIAL in cells[table.columns.index("MT-Bench")].text()
    assert tables.PARTIAL in table.note
    assert r"$^\dagger$" in table.to_latex()


def test_complete_scores_are_not_marked(tmp_path):
    table = tables.main_table(with_scores(tmp_path, questions=8), "gold")
    assert tables.PARTIAL not in table.to_markdown()


def test_extrapolated_scores_are_marked_and_explained(tmp_path):
    results = with_scores(tmp_path, questions=6)
    path = results.folder / "scores.csv"
    rows = list(csv.DictReader(path.open()))
    for row in rows:
        if (row["method"], row["seed"], row["metric"]) == ("dpo", "1", "length_controlled_winrate"):
            row["flag"] = "equal length is far away"
    write_text(path, collect.to_csv(rows))
    for table in (tables.main_table(results, "gold"), tables.seeds_table(results, "gold")):
        marked = [head for head, cells in table.rows if any(tables.FLAGGED in cell.text() for cell in cells)]
        assert len(marked) == 1
        assert "equal length is far away" in table.note
        assert tables.FLAGGED in table.to_html()
        assert r"$^\ddagger$" in table.to_latex()


def test_a_missing_seed_makes_a_score_partial(tmp_path):
    results = with_scores(tmp_path, questions=8)
    frame = results.scores
    results.__dict__["scores"] = frame[~((frame["method"] == "dpo") & (frame["seed"] == 2))]
    cells = dict(tables.main_table(results, "gold").rows)
    assert cells["DPO"][1].partial
    assert not cells["MetaAPO"][1].partial


def test_no_table_mixes_judges(tmp_path):
    results = with_scores(tmp_path, questions=8, judges=("gold", "other"))
    made = tables.tables(results)
    mains = {judge: next(t for t in made if t.name == f"main_{judge}") for judge in ("gold", "other")}
    assert mains["gold"].rows != mains["other"].rows
    assert "other" not in mains["gold"].to_markdown()
    own = results.scores[(results.scores["judge"] == "other") & (results.scores["metric"] == "average")]
    own = own[(own["iteration"] == 3) & (own["method"] == "dpo")]["value"]
    assert dict(mains["other"].rows)["DPO"][-1].value == pytest.approx(own.mean())


def test_one_seed_gives_no_interval(tmp_path):
    cells = dict(tables.main_table(with_scores(tmp_path, seeds=(0,), questions=8), "gold").rows)["DPO"]
    assert cells[1].low is None
    assert "[" not in cells[1].text()


def test_special_characters_are_escaped_for_latex(results):
    text = tables.main_table(results, "gold").to_latex()
    assert r"\toprule" in text
    text = text.replace("tab:main_gold", "").replace("{%\n", "{\n")
    assert not re.search(r"(?<!\\)[%_#]", text)
    assert text.count("{") == text.count("}")
    assert not re.search(r"\\\\ *\[", text)  # LaTeX would read a bracket after a line break as its length


def test_the_annotations_are_the_first_column(results):
    for table in (tables.main_table(results, "gold"), tables.seeds_table(results, "gold")):
        assert table.columns[0] == "annotations, % of Online DPO"
        assert {cells[0].value for head, cells in table.rows if head.startswith("Online DPO")} == {100}


def test_cut_answers_are_shown_beside_greedy_scores_alone_unless_there_are_many(tmp_path):
    results = with_scores(tmp_path, questions=6)
    for run in ("dpo/budget1.0/seed0", "sft/budget0.0/seed0"):
        paths = {
            f"elsewhere/answers/{benchmark}/{run}/iter{0 if run.startswith('sft') else 3}.jsonl": {
                "n": 200,
                "turns": 200,
                "cut": 1,
                "empty": 0,
            }
            for benchmark in ("alpacaeval2", "arenahard")
        }
        write_json(results.folder / "answers" / f"{run}.json", {"run": run, "answers": paths})
    columns = tables.main_table(Results(results.experiment), "gold").columns
    assert [column for column in columns if "cut" in column] == ["Arena-Hard cut, %"]


PDFLATEX = shutil.which("pdflatex")
BOOKTABS = bool(PDFLATEX) and not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode


@pytest.mark.skipif(not BOOKTABS, reason="no pdflatex with booktabs here: apt-get install texlive-latex-recommended")
@pytest.mark.parametrize("many", [False, True])
def test_latex_tables_fit_an_article_of_two_columns(many, results, tmp_path):
    """Compiled for real; those of few methods fit even without the box that shrinks a table wider than the page."""
    if many:
        methods = {
            **everything(),
            "metaapo": FakeMethod(60, (0.6, 0.6, 0.6), config={"budget": [0.1, 0.25, 0.58, 1.0]}),
        }
        benchmarks = ("pooled", "alpacaeval2", "arenahard", "mtbench")
        results = with_scores(tmp_path, methods=methods, questions=6, benchmarks=benchmarks)
    made = tables.tables(results)
    packages = r"\usepackage{booktabs,graphicx}" + ("" if many else r"\renewcommand{\resizebox}[3]{#3}")
    lines = [r"\documentclass[twocolumn]{article}", packages, r"\begin{document}", *(t.to_latex() for t in made)]
    write_text(tmp_path / "all.tex", "\n".join([*lines, r"\end{document}", ""]))
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull.*|.*Float too large.*|.*Missing character.*", done.stdout)


# --- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_drawn_only_where_their_data_exist(tmp_path, results):
    drawn = {path.stem for path in (results.folder / "report").glob("*.png")}
    assert {"budget", "curves", "contrasts", "meta_map", "sampling_rate", "training", "drift", "costs"} <= drawn
    assert not {"judges", "sweep", "ablations"} & drawn
    plain = with_scores(tmp_path, methods={"dpo": FakeMethod(54, (0, 0, 0))}, questions=8)
    for absent in (
        figures.reinforcement,
        figures.meta_map,
        figures.sampling_rate,
        figures.sweep,
        figures.ablations,
        figures.judges,
    ):
        assert absent(plain) is None


def test_optional_figures_appear_with_their_data(tmp_path):
    methods = {**everything(), "metaapo": FakeMethod(60, (0.6, 0.6, 0.6), learns=True, config={"budget": [0.25, 1.0]})}
    methods["random_sampling"] = FakeMethod(55, (0.6, 0.6, 0.6), config={"select": "all"})
    methods["ppo"] = FakeMethod(55, reinforces=True)
    results = with_scores(tmp_path, methods=methods, questions=6, seeds=(0, 1), judges=("gold", "other"))
    for present in (figures.sweep, figures.ablations, figures.judges, figures.reinforcement):
        assert present(results) is not None
    assert "Kendall" in figures.judges(results).caption


def test_the_main_figure_shows_the_measured_budget(results):
    figure = figures.budget(results)
    axes = figure.figure.axes[0]
    curve = next(c for c in axes.containers if c.get_label() == "MetaAPO")
    spent = results.scores[(results.scores["method"] == "metaapo") & (results.scores["metric"] == "win_rate")]
    spent = spent[spent["benchmark"] == "alpacaeval2"].groupby("iteration")["annotations"].mean()
    full = results.runs.set_index("method").loc["online_dpo", "responses_scored"].iloc[0]
    assert curve.lines[0].get_xdata() == pytest.approx(100 * spent.to_numpy() / full)
    online = next(c for c in axes.containers if c.get_label() == "Online DPO")
    assert online.lines[0].get_xdata()[-1] == pytest.approx(100)


def test_every_point_of_a_figure_leads_to_its_run(results):
    folder = results.folder / "report"
    for name in ("budget", "curves", "meta_map", "sampling_rate", "training", "drift", "overoptimisation", "costs"):
        data = pd.read_csv(folder / f"{name}.data.csv")
        assert set(data["run"]) <= set(results.experiment.run_ids()), name
        assert len(data)
    points = pd.read_csv(folder / "budget.data.csv")
    assert len(points) == 4 * 3 * 3
    first = points.iloc[0]
    scores = results.scores[(results.scores["metric"] == "win_rate") & (results.scores["value"] == first["value"])]
    row = scores.iloc[0]
    assert first["run"] == f"{row['method']}/budget{row['budget']}/seed{row['seed']}"


def test_captions_say_n_seeds_and_judge(results):
    for drawn in (figures.budget(results), figures.curves(results), figures.contrasts(results)):
        assert "3 seeds" in drawn.caption
        assert "udge: gold" in drawn.caption
    assert (
        "n = 23 to 24 prompts" in figures.budget(results).caption or "n = 23 prompts" in figures.budget(results).caption
    )


def test_the_page_shows_every_panel_of_a_figure_as_text_and_lines_of_its_own(results):
    drawn = figures.budget(results)
    drawn.pdf()
    made = inline.panels(drawn.figure, "budget", drawn.alt)
    assert [re.search(r'aria-label="([^.]*)\.', panel.svg)[1] for panel in made] == [
        "Score against annotations spent",
        "Annotations of each iteration",
    ]
    whole = "".join(panel.svg for panel in made)
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', whole)) | set(re.findall(r"url\(#([^)]+)\)", whole)) == set(ids)
    for panel in made:
        texts = set(re.findall(r"<text[^>]*>([^<]+)</text>", panel.svg))
        assert {"DPO", "Online DPO", "MetaAPO", "Random selection"} <= texts
        assert "style=" not in panel.svg
        assert set(re.findall(r'class="(m\w+)"', panel.svg)) == set(panel.styles)
    ink = " ".join(style for panel in made for style in panel.styles.values())
    assert "var(--ink)" in ink
    assert "color-mix(in srgb,#d55e00 var(--keep),#fff)" in ink


def test_labels_at_the_side_stay_apart_and_in_order():
    found = svg.apart([5, 5.1, 0, 9, 9.05], 1, 0, 9)
    assert sorted(range(5), key=lambda i: found[i]) == [2, 0, 1, 3, 4]
    placed = sorted(found)
    assert min(b - a for a, b in zip(placed, placed[1:])) >= 1 - 1e-9
    assert placed[0] >= 0
    assert placed[-1] <= 9


def test_the_same_numbers_give_the_same_picture(results):
    first, second = (figures.draw(results, (figures.costs,))[0] for _ in range(2))
    assert first.png() == second.png()
    assert first.pdf() == second.pdf()


def test_every_method_has_its_colour_and_marker():
    methods = list(everything())
    looks = [tuple(drawing.look_of(method, methods).values()) for method in methods]
    assert len(set(looks)) == len(looks)


# --- verdicts from files -------------------------------------------------------------------------------------------

BEST = {"metaapo": 68.0}


def verdicts_of(folder, rates=None, shift=1.0, **win_rates):
    methods = everything(**(BEST | win_rates))
    if rates:
        for name in ("random", "random_sampling"):
            methods[name] = dataclasses.replace(methods[name], rates=rates)
    learned = FakeMethod(methods["metaapo"].win_rate, rates or (0.62, 0.55, 0.50), learns=True, map_shift=shift)
    results = with_scores(folder, methods=methods | {"metaapo": learned}, seeds=(0, 1, 2, 3, 4), questions=80)
    return {record["id"]: record for record in claims.verdicts(results)}


def test_claims_that_the_files_confirm_are_supported(tmp_path):
    records = verdicts_of(tmp_path, rates=(0.7, 0.5, 0.3))
    assert {id: record["verdict"] for id, record in records.items()} == dict.fromkeys(records, "supported")
    assert list(records) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    for record in records.values():
        assert {"id", "statement", "verdict", "effect", "ci_low", "ci_high", "n_seeds"} <= set(record)
        assert record["n_seeds"] == 5


def test_claims_that_the_files_refute_are_worse_and_not_seen_in_a_small_world(tmp_path):
    better = {"ppo": 84.0, "online_dpo": 84.0, "uniform_weights": 84.0, "untrained": 84.0, "random": 84.0}
    records = verdicts_of(tmp_path, rates=(0.6, 0.7, 0.9), shift=0.01, **better)
    assert {id: record["verdict"] for id, record in records.items()} == dict.fromkeys(records, "worse")
    for record in records.values():
        assert record["reason"].startswith("not seen here: ")
        assert set(record["conditions"]) == {"start", "data and scale"}


def pooled(folder, **truth):
    """Results of an experiment with the primary endpoint."""
    return with_scores(folder, benchmarks=("alpacaeval2", "pooled"), **truth)


def test_an_experiment_with_the_pooled_benchmark_decides_by_it(tmp_path):
    results = pooled(tmp_path, methods=everything(metaapo=68.0), seeds=(0, 1, 2, 3), questions=20)
    logs = evidence.Logs(results, "gold")
    assert logs.endpoint == ("pooled", "win_rate")
    assert logs.contrast("metaapo", "dpo", *logs.endpoint).shape == (4, 60)
    records = {record["id"]: record for record in claims.verdicts(results)}
    assert records["C1"]["verdict"] == "supported"
    for record in records.values():
        assert {part["benchmark"] for part in record["parts"] if part["decides"]} <= {"pooled", ""}
    write_json(results.folder / "claims.json", list(records.values()))
    assert figures.budget(results).caption.startswith("Pooled questions, win rate")
    table = tables.main_table(results, "gold")
    assert table.columns[1] == "Pooled questions"
    assert "the primary endpoint, which decides the claims" in table.note


def capped(folder, budgets, rates=(0.62, 0.55, 0.50), seeds=(0, 1)):
    methods = {"dpo": BASIC["dpo"], "online_dpo": BASIC["online_dpo"]}
    methods["metaapo"] = FakeMethod(62, rates, learns=True, config={"budget": budgets})
    return evidence.Logs(with_scores(folder, methods=methods, seeds=seeds, questions=8), "gold")


def test_the_price_is_taken_at_the_largest_budget_within_58_percent(tmp_path):
    logs = capped(tmp_path / "capped", [0.25, 0.5, 1.0], rates=(0.9, 0.9, 0.9))
    assert logs.within("metaapo", 0.58) == "metaapo@0.5"
    items = logs.results.items("alpacaeval2", "gold")
    ours = items[(items["method"] == "metaapo") & (items["budget"] == "0.5") & (items["iteration"] == 3)]
    theirs = items[(items["method"] == "online_dpo") & (items["iteration"] == 3)]
    expected = 100 * (ours["value"].mean() - theirs["value"].mean())
    table = logs.contrast("metaapo@0.5", "online_dpo", "alpacaeval2", "win_rate")
    assert table.mean() == pytest.approx(expected)
    assert tables.name_of("metaapo@0.5") == "MetaAPO (at most 50%)"
    assert capped(tmp_path / "frugal", [1.0]).within("metaapo", 0.58) == "metaapo"
    assert capped(tmp_path / "greedy", [1.0], rates=(0.9, 0.9, 0.9)).within("metaapo", 0.58) is None


def test_the_natural_rate_needs_a_run_without_a_cap(tmp_path):
    logs = capped(tmp_path, [0.25, 0.5])
    assert logs.within("metaapo", 0.58) == "metaapo@0.5"
    assert logs.measure("metaapo", "annotation_ratio") is None


def test_loss_gaps_are_means_over_steps_of_each_world(tmp_path):
    results = with_scores(tmp_path, seeds=(0, 1, 2, 3), worlds=(0, 1), questions=6)
    gaps = evidence.Logs(results, "gold").loss_gaps("metaapo")
    assert {t: len(values) for t, values in gaps.items()} == {1: 2, 2: 2, 3: 2}
    assert gaps[1] == pytest.approx([-0.1, -0.1])
    assert evidence.Logs(results, "gold").loss_gaps("online_dpo") == {}


def test_an_assay_without_room_makes_selection_untestable(tmp_path):
    results = with_scores(tmp_path, methods=everything(metaapo=68.0), questions=20)
    row = {"name": "room_selection", "value": 0.1, "ci_low": -0.2, "ci_high": 0.4, "low": None, "high": None}
    write_json(results.folder / "assay.json", [row | {"ok": None, "unit": "points", "note": ""}])
    records = {record["id"]: record for record in claims.verdicts(results)}
    assert records["C6"]["verdict"] == records["C3"]["verdict"] == "untestable here"
    assert records["C1"]["verdict"] != "untestable here"


def test_the_main_table_shows_the_share_of_cut_answers_beside_the_scores(tmp_path):
    results = pooled(tmp_path, questions=6, seeds=(0,))
    for run, cut in (("dpo/budget1.0/seed0", 6), ("sft/budget0.0/seed0", 0)):
        iteration = 0 if run.startswith("sft") else 3
        path = f"elsewhere/answers/pooled/{run}/iter{iteration}.jsonl"
        entry = {"n": 18, "turns": 24, "cut": cut, "empty": 0}
        write_json(results.folder / "answers" / f"{run}.json", {"run": run, "answers": {path: entry}})
    table = tables.main_table(Results.load(tmp_path / "config.yaml"), "gold")
    rows = {head: dict(zip(table.columns, cells)) for head, cells in table.rows}
    assert rows["DPO"]["Pooled questions cut, %"].value == 25
    assert "AlpacaEval 2 cut, %" not in table.columns
    assert "Cut: share of answers" in table.note


def test_the_default_methods_leave_ablations_untested(results):
    records = {record["id"]: record for record in results.claims}
    assert records["C3"]["verdict"] == "not tested"
    assert "metaapo with weights: uniform" in records["C3"]["reason"]
    assert records["C1"]["missing"] == ["ppo", "selm"]


def test_variants_are_found_by_what_they_change_not_by_their_name(tmp_path):
    methods = {
        "metaapo": BASIC["metaapo"],
        "anything": FakeMethod(55, config={"map": "untrained"}),
        "two_changes": FakeMethod(55, config={"map": "untrained", "weights": "uniform"}),
    }
    results = with_scores(tmp_path, methods=methods, seeds=(0, 1), questions=6)
    found = evidence.Logs(results, "gold").methods
    assert found["map: untrained"] == "anything"
    assert "two_changes" not in {found[key] for key in found if ": " in key}


def test_with_several_worlds_the_worlds_count_not_their_seeds(tmp_path):
    results = with_scores(tmp_path, seeds=(0, 1, 2, 3), worlds=(0, 1), questions=10)
    table = evidence.Logs(results, "gold").contrast("metaapo", "dpo", "alpacaeval2", "win_rate")
    assert table.shape == (2, 10)


def test_a_controlled_score_is_compared_by_its_own_values_of_each_prompt(results):
    logs = evidence.Logs(results, "gold")
    controlled = logs.contrast("metaapo", "dpo", "alpacaeval2", "length_controlled_winrate")
    frame = results.scores[
        (results.scores["metric"] == "length_controlled_winrate") & (results.scores["iteration"] == 3)
    ]
    means = frame.groupby("method")["value"].mean()
    assert controlled.mean() == pytest.approx(means["metaapo"] - means["dpo"])
    items = results.items("alpacaeval2", "gold")
    items = items[(items["seed"] == 0) & (items["iteration"] == 3)].set_index("question")["length_controlled_winrate"]
    method = results.items("alpacaeval2", "gold").query("seed == 0 and iteration == 3").set_index("question")["method"]
    differences = items[method == "metaapo"] - items[method == "dpo"]
    assert sorted(controlled[0]) == pytest.approx(sorted(100 * differences))


def test_a_metric_without_values_per_prompt_is_not_tested(results):
    assert evidence.Logs(results, "gold").contrast("metaapo", "dpo", "mtbench", "turn_1") is None


def test_another_judge_is_reported_next_to_the_first(tmp_path):
    results = with_scores(tmp_path, questions=10, judges=("gold", "other"))
    record = next(r for r in claims.verdicts(results) if r["id"] == "C6")
    assert record["judge"] == "gold"
    assert record["other_judges"]["other"]["verdict"] in cards.MARKS


# --- page ----------------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained(html):
    """Nothing is loaded from elsewhere and no link leads to a neighbouring file, so that the page can be e-mailed."""
    assert not re.search(r'\bsrc="', html)
    assert "@import" not in html
    assert not re.search(r"url\((?!#plot-)", html)
    assert set(re.findall(r'href="(https?://[^"]*)"', html)) == {"https://arxiv.org/abs/2509.23371"}
    others = [link for link in re.findall(r'href="([^"]*)"', html) if not link.startswith(("https://", "#", "data:,"))]
    assert others == []
    assert len(html.encode()) < 5_000_000


def test_the_page_names_its_image_for_link_previews_only_by_an_absolute_address(results, html):
    assert "og:image" not in html
    assert (results.folder / "report" / "preview.png").exists()
    published = page.render(results, [], [*tables.tables(results)], samples.browse(results), "https://example.org/a/")
    assert '<meta property="og:image" content="https://example.org/a/preview.png">' in published


def test_a_log_is_read_as_by_the_standard_library_or_refused_with_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = ['{"a": 1, "b": null}', '{"a": "\\ud800", "c": 1e9}', '{"a": "\\ud83d\\ude00 \u2028"}', "", '{"a": NaN}']
    for text in ("\n".join(lines[:1]), "\n".join(lines[:4]), lines[2]):
        write_text(path, text + "\n")
        assert runs.read_log(path) == read_jsonl(path)
    for text in ('{"a": 1}\n{"a": \n', "{}\n[1]\n", '{"a": 1e999}\n'):
        write_text(path, text)
        with pytest.raises(DataError, match="log.jsonl"):
            runs.read_log(path)


def test_inner_links_lead_somewhere(html):
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    assert set(re.findall(r'href="#([^"/][^"]*)"', html)) <= ids
    kinds = {route.split("/")[0] for route in re.findall(r'href="#/([^"]+)"', html)}
    assert kinds == {"contrast", "score", "run"}


def test_the_first_screen_says_what_was_claimed_found_how_sure_and_whether_it_could_have_been_seen(html):
    order = [html.index(mark) for mark in ("<h1>", 'class="lead"', 'class="banner"', 'id="matrix"', 'id="seen"')]
    order += [html.index(mark) for mark in ('id="main-figure"', 'id="verdicts"', 'id="questions"')]
    assert order == sorted(order)
    headline = re.search(r"<h1>(.*?)</h1>", html)[1]
    assert headline.startswith("In a small world, MetaAPO ")
    assert "Online DPO" in headline
    assert "comparable with the paper" in html


def test_every_claim_has_a_card_with_the_paper_beside_it(html):
    for id in ("C1", "C2", "C3", "C4", "C5", "C6"):
        card = html[html.index(f'id="claim-{id}"') :]
        card = card[: card.index("</article>")]
        for row in ("Paper", "Here", "What differs", "What would count against it", "How sure"):
            assert f"<dt>{row}" in card, (id, row)


def test_the_page_carries_the_scores_and_the_record_of_every_run(results, html):
    def embedded(name):
        return json.loads(re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', html)[1])

    assert embedded("files")["scores.csv"] == (results.folder / "scores.csv").read_text()
    shared, records = embedded("names")["shared"], embedded("runs")
    for run in results.experiment.run_ids():
        whole = shared | {key: value for key, value in records[run].items() if key != "title"}
        assert whole == read_json(results.folder / "runs" / run / "run.json")
        assert f'href="#/run/{run}"' in html


def test_the_page_says_when_where_and_from_what_it_was_made(html):
    foot = html[html.index("<footer>") :]
    for name in ("Date", "Hardware", "Commit", "Packages", "Paper", "Cite"):
        assert f"<dt>{name}</dt>" in foot
    assert "0" * 40 in foot
    assert "torch 2.13.0" in foot
    assert "arXiv 2509.23371" in foot


def test_an_experiment_without_the_method_under_test_says_so_in_its_headline(tmp_path):
    results = with_scores(tmp_path, methods={"dpo": FakeMethod(54, (0, 0, 0))}, questions=6, seeds=(0,))
    write_json(results.folder / "claims.json", claims.verdicts(results))
    made = page.render(results, [], tables.tables(results), samples.browse(results))
    headline = re.search(r"<h1>(.*?)</h1>", made)[1]
    assert headline == (
        "This experiment trains DPO. MetaAPO is not among them, so none of the paper&#39;s claims is tested."
    )
    assert 'id="matrix"' not in made


def test_the_matrix_has_a_cell_for_every_baseline_and_metric(results):
    made = first_screen.matrix(results)
    assert made["columns"] == ["DPO", "Online DPO"]
    assert all(len(row["cells"]) == 2 for row in made["rows"])
    assert {cell["slug"] for row in made["rows"] for cell in row["cells"]} <= {"win", "tie", "loss", "flat", "open"}


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ((0.1, 3), "supported"),
        ((-3, -0.1), "worse"),
        ((-0.9, 0.9), "equivalent"),
        ((-4, 0.5), "no gain that matters"),
        ((-2, 2), "inconclusive"),
    ],
)
def test_a_comparison_that_does_not_decide_is_called_by_its_interval(ends, state):
    part = {"verdict": None, "bound": 0.0, "margin": 1.0, "ci_low": ends[0], "ci_high": ends[1]}
    assert first_screen.state_of(part) == state


def test_sampling_by_quarter_of_the_score_is_taken_within_each_run_and_iteration():
    ledger = pd.DataFrame(
        {
            "method": "metaapo",
            "seed": [0] * 8 + [1] * 8,
            "iteration": 1,
            "offline_score": [*range(8), *range(100, 108)],
            "sampled": [1, 1, 1, 0, 0, 0, 0, 0] * 2,
        }
    )
    rates = mechanism.quarters(ledger, "metaapo").loc[1]
    assert list(rates) == [100, 50, 0, 0, 37.5]


def test_the_page_shows_health_and_what_is_out_of_range(html):
    health = html[html.index('id="health"') : html.index('id="samples"')]
    assert "reward model agrees with gold" in health
    assert "DPO beats SFT" in health


def test_text_of_models_cannot_break_out_of_the_page(results):
    data = samples.browse(results)
    data["questions"][0]["a"][0]["x"] = ["</script><script>alert(1)</script>"]
    embedded = str(page._script_json(data))
    assert "</script" not in embedded
    assert json.loads(embedded)["questions"][0]["a"][0]["x"] == ["</script><script>alert(1)</script>"]


# --- samples -------------------------------------------------------------------------------------------------------


def test_the_browser_holds_every_question_with_the_answers_of_all_models(results):
    data = samples.browse(results)
    assert data["left_out"] == 0
    assert len(data["questions"]) == 3 * 24
    assert len(data["models"]) == 1 + 4 * 3
    assert all(len(question["a"]) == len(data["models"]) for question in data["questions"])
    disagreements = [question["d"] for question in data["questions"]]
    assert disagreements == sorted(disagreements, reverse=True)


def test_an_answer_is_shown_with_its_verdict_and_gold_rubric(results):
    data = samples.browse(results)
    question = next(q for q in data["questions"] if q["b"] == "mtbench")
    answer = question["a"][-1]
    assert len(question["p"]) == len(answer["x"]) == len(answer["g"]) == 2
    assert set(answer["g"][0]) == {"reward", *RUBRIC}
    assert answer["v"][0].startswith(("grade", "no verdict"))
    model = samples.models(results)[answer["m"]]
    raw = read_jsonl(model.path(results.folder / "answers" / "mtbench"))
    assert answer["x"] == next(r["choices"][0]["turns"] for r in raw if str(r["question_id"]) == question["q"])


def test_a_large_experiment_is_reduced_to_the_questions_that_separate_the_methods_most(results):
    data = samples.browse(results, limit=60_000)
    assert 0 < len(data["questions"]) < 3 * 24
    assert data["left_out"] == 3 * 24 - len(data["questions"])
    assert len(json.dumps(data["questions"], ensure_ascii=False).encode()) < 80_000


# --- health, replay, notebooks -------------------------------------------------------------------------------------


def run_gate(experiment, enforce):
    path = experiment.results / "gate.yaml"
    dump = experiment.dump() | {"health": {"enforce": enforce}}
    path.write_text(json.dumps(dump), encoding="utf-8")
    command = [sys.executable, "-m", "reports.health_gate", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_unhealthy_experiment_fails_after_its_report_and_says_why(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, questions=4, seeds=(0,)))
    check = {"name": "dpo beats SFT", "value": 0.4, "low": 0.5, "high": None, "ok": False}
    write_json(experiment.results / "health.json", {"ok": False, "checks": [check]})
    failed = run_gate(experiment, enforce=True)
    assert failed.returncode != 0
    assert "dpo beats SFT: 0.4, expected at least 0.5" in failed.stderr
    assert not (experiment.results / "health.ok").exists()
    assert run_gate(experiment, enforce=False).returncode == 0
    assert "dpo beats SFT" in (experiment.results / "health.ok").read_text()


def test_an_unhealthy_world_is_reported_too(tmp_path):
    experiment = load(write_results(tmp_path, {"dpo": FakeMethod(55)}, questions=4, seeds=(0,)))
    path = experiment.results / "world0" / "health.json"
    rows = read_json(path)
    write_json(path, [rows[0] | {"value": 0.01, "ok": False}, *rows[1:]])
    assert health_gate.failures(list(health_gate.documents(experiment).values())) == [
        "room: 0.01, expected 0.15 to 0.95"
    ]


def test_replay_of_a_packed_experiment_gives_the_same_bytes(results, tmp_path):
    replay.pack(results.experiment, tmp_path / "stored")
    assert not list((tmp_path / "stored").rglob("*.safetensors"))
    assert not (tmp_path / "stored" / "scores").exists()
    same = replay.replay(tmp_path / "stored", tmp_path / "again")
    assert same == {"scores.csv": True, "claims.json": True}
    for name in ("scores.csv", "claims.json"):
        assert sha256_file(tmp_path / "again" / "synthetic" / name) == sha256_file(results.folder / name)
    assert (tmp_path / "again" / "synthetic" / "report" / "index.html").exists()


def test_replay_notices_judgments_that_were_tampered_with(results, tmp_path, monkeypatch):
    replay.pack(results.experiment, tmp_path / "stored")
    experiment = replay.unpack(tmp_path / "stored", tmp_path / "again")
    path = experiment.results / "judgments/alpacaeval2/gold/dpo/budget1.0/seed0/iter3.json"
    rows = read_json(path)
    write_json(path, [row | {"preference": 1.9} for row in rows])
    monkeypatch.setattr(replay, "unpack", lambda source, out: experiment)
    monkeypatch.setattr(page, "build", lambda *_: None)
    monkeypatch.setattr(drawing, "save_all", lambda *_: list)
    assert replay.replay(tmp_path / "stored", tmp_path / "again")["scores.csv"] is False


def test_replay_refuses_unreadable_input(tmp_path, results):
    shutil.copy(results.folder / "config.yaml", tmp_path / "config.yaml")
    with pytest.raises(DataError, match="answers not found"):
        replay.unpack(tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="would overwrite"):
        replay.unpack(results.folder, results.folder.parent)


@pytest.mark.parametrize("name", ["results", "budget", "compare"])
def test_notebooks_are_clean_parametrised_and_read_through_the_public_functions(name):
    notebook = json.loads((page.HERE / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    text = "".join("".join(cell["source"]) for cell in code)
    assert "Results.load(config)" in text
    assert "read_csv" not in text
    assert "torch" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results", "budget", "compare"])
def test_notebooks_run(name, results, tmp_path):
    """From a folder below the one where the configuration's path starts, as a reader opens them, with no project."""
    config = (results.folder / "config.yaml").relative_to(results.folder.parent)
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--cwd",
        str(results.folder),
        "-k",
        "python3",
        str(page.HERE / f"{name}.ipynb"),
    ]
    parameters = ["-p", "config", str(config), *(["-p", "other", str(config)] if name == "compare" else [])]
    subprocess.run([*command, str(tmp_path / "out.ipynb"), *parameters], check=True)
    assert '"output_type": "error"' not in (tmp_path / "out.ipynb").read_text()


def test_reports_need_no_torch():
    code = "import sys, reports.__main__, reports.replay; print([m for m in ('torch', 'trl') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
