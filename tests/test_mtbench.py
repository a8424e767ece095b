"""MT-Bench: official scores to the digit, FastChat's code on our records, and incomplete coverage made visible."""

import argparse
import json
import subprocess
import sys

import pytest
from evaldata import ROOT, shared

from eval.mtbench import ratings
from eval.mtbench import score as mtbench
from metaapo.data import DataError, read_json, read_records, write_jsonl

FILES = ("mamba_in_llama_gpt-4_single", "mistral_orpo_gpt-4_single")


def judgment(question, turn, grade, model="m", judge="gpt-4"):
    return {"question_id": question, "model": model, "judge": [judge, "single-v1"], "score": grade, "turn": turn}


def complete(grade=7, model="m"):
    return [judgment(question, turn, grade, model) for question in range(81, 161) for turn in (1, 2)]


@pytest.mark.parametrize("name", FILES)
def test_every_shared_model_has_the_official_score(name):
    expected = read_json(shared("mt_bench/model_judgment/expected.json"))[name]
    result = mtbench.score(read_records(shared(f"mt_bench/model_judgment/{name}.jsonl.gz")))
    assert {m["model"] for m in result["models"]} == set(expected)
    for model in result["models"]:
        official = expected[model["model"]]
        for key in ("average", "turn_1", "turn_2"):
            assert model[key] == pytest.approx(official[key], abs=1e-6)
        assert model["n_unparsed"] == official["n_minus_one"]
        assert model["n"] == official["n_rows"] - official["n_minus_one"]
        assert model["ci_low"] < model["average"] < model["ci_high"]
        assert not model["partial"]


@pytest.mark.parametrize("name", FILES)
def test_the_parser_agrees_with_every_stored_judgment(name):
    rows = read_records(shared(f"mt_bench/model_judgment/{name}.jsonl.gz"))
    assert len(rows) > 400
    for row in rows:
        rating = ratings.parse_rating(row["judgment"])
        assert (ratings.UNPARSED if rating is None else rating) == row["score"]


def test_fastchats_own_script_reads_our_records_and_finds_our_scores(tmp_path, capsys):
    show_result = pytest.importorskip("fastchat.llm_judge.show_result")
    import pandas as pd

    rows = [*complete(6, "one")[:-3], *complete(9, "two"), judgment(81, 1, -1, "one"), judgment(81, 1, 2.5, "one")]
    path = tmp_path / "judge_single.jsonl"
    write_jsonl(path, rows)
    with pd.option_context("display.precision", 12):
        show_result.display_result_single(
            argparse.Namespace(input_file=str(path), bench_name="mt_bench", judge_model="gpt-4", model_list=None)
        )
    printed = capsys.readouterr().out
    ours = {m["model"]: m for m in mtbench.score(rows)["models"]}
    sections = {"First turn": "turn_1", "Second turn": "turn_2", "Average": "average"}
    for title, key in sections.items():
        body = printed.split(f"########## {title} ##########")[1].split("##########")[0]
        theirs = {line.split()[0]: float(line.split()[-1]) for line in body.splitlines() if line[:3] in ("one", "two")}
        assert theirs == pytest.approx({name: model[key] for name, model in ours.items()})


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Rating: [[7]]", 7),
        ("Rating: [[7.5]] out of [[10]]", 7.5),
        ("[3] is a footnote, Rating: [[8]]", 8),
        ("Rating: [8]", 8),
        ("Rating: [[8/10]]", None),
        ("Rating: 8", None),
        ("[[-1]]", None),
        ("", None),
    ],
)
def test_the_first_double_bracket_counts_then_the_first_single_one(text, grade):
    assert ratings.parse_rating(text) == grade


def test_a_score_with_many_unparsed_grades_is_partial_and_bounded():
    rows = [judgment(q, t, 7 if q < 101 else -1) for q in range(81, 161) for t in (1, 2)]
    model = mtbench.score(rows)["models"][0]
    assert model["average"] == 7
    assert model["partial"]
    assert (model["n"], model["n_unparsed"], model["n_failed"], model["coverage"]) == (40, 120, 120, 0.25)
    assert model["bounds"] == [2.5, 9.25]


def test_missing_judgments_are_counted_and_the_threshold_is_a_choice():
    rows = complete()[:-4]
    model = mtbench.score(rows)["models"][0]
    assert (model["n_missing"], model["n_failed"], model["partial"]) == (4, 4, True)
    assert not mtbench.score(rows, min_coverage=0.9)["models"][0]["partial"]


def test_a_grade_parsed_on_a_second_attempt_covers_its_turn():
    model = mtbench.score([*complete(), judgment(90, 2, -1)])["models"][0]
    assert (model["coverage"], model["n_unparsed"], model["n_failed"]) == (1, 1, 0)


def test_a_model_without_any_grade_has_no_score_but_does_not_stop_the_others():
    result = mtbench.score([*complete(5, "good"), judgment(81, 1, -1, "mute")])
    assert [m["model"] for m in result["models"]] == ["good", "mute"]
    mute = result["models"][1]
    assert (mute["average"], mute["ci_low"], mute["partial"], mute["bounds"]) == (None, None, True, [1, 10])
    json.dumps(result, allow_nan=False)


def test_other_questions_set_their_categories_and_number():
    questions = [{"question_id": f"q{i}", "category": "lists" if i < 2 else "colours"} for i in range(4)]
    rows = [judgment(f"q{i}", turn, i + turn) for i in range(4) for turn in (1, 2)]
    result = mtbench.score(rows, questions)
    assert result["n_expected"] == 8
    assert result["models"][0]["categories"] == {"lists": 2.0, "colours": 4.0}
    assert mtbench.score(rows)["n_expected"] == 8  # without the file, the judged questions are the expected ones


def test_items_give_a_questions_mean_grade_and_the_answers_length():
    answers = [{"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["abc", "de"]}]}]
    rows = [judgment(81, 1, 4), judgment(81, 2, 8), judgment(82, 1, -1)]
    items = mtbench.items(rows, answers=answers)
    assert items[0] == {"model": "m", "question": "81", "category": "writing", "value": 6.0, "length": 5}
    assert (items[1]["value"], items[1]["length"]) == (None, None)
    assert mtbench.score(rows, answers=answers)["models"][0]["mean_length"] == 5


def test_the_interval_resamples_questions_with_both_turns_together():
    # turns that agree perfectly carry no more information than one turn
    once = [judgment(q, 1, q % 10 + 1) for q in range(81, 161)]
    both = [*once, *[{**row, "turn": 2} for row in once]]
    narrow, wide = (mtbench.score(rows)["models"][0] for rows in (both, once))
    assert narrow["stderr"] == pytest.approx(wide["stderr"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([judgment(81, 1, 5), judgment(81, 1, 5, judge="gpt-5")], "2 judges are mixed"),
        ([{"question_id": 81, "model": "m", "turn": 1}], "judgments, record 1: key 'score'"),
        ([], "nothing to score"),
        ([judgment(81, 1, "good")], "record 1: score is 'good'"),
        ([judgment(81, 3, 5)], "expected 1 or 2"),
    ],
)
def test_bad_records_are_reported(rows, message):
    with pytest.raises(DataError, match=message):
        mtbench.score(rows)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "eval.mtbench", "score", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_prints_one_json_object_and_writes_the_same(tmp_path):
    write_jsonl(tmp_path / "judgments.jsonl.gz", complete())
    done = run("--judgments", tmp_path / "judgments.jsonl.gz", "--out", tmp_path / "out" / "scores.json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == read_json(tmp_path / "out" / "scores.json")


def test_the_command_reports_an_error_in_one_line(tmp_path):
    done = run("--judgments", tmp_path / "absent.jsonl")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "absent.jsonl" in done.stderr
