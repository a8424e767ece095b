"""The original tools read our files, and we read theirs; tested for real, against one loopback endpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ask_judge import make_judge, make_pairs
from loopback import KEY, Endpoint

from eval.alpacaeval2 import score as alpacaeval2
from eval.alpacaeval2.judging import judge_answers as judge_alpacaeval2
from eval.alpacaeval2.prompts import ALPACAEVAL2_FILE
from eval.mtbench import score as mtbench
from eval.mtbench.judging import judge_answers as judge_mtbench
from eval.packages import package_file
from eval.questions import Question
from metaapo.config import EvaluationConfig
from metaapo.data import read_json, write_json, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
ALPACA_EVAL = """
import sys, yaml, json
import alpaca_eval
own, reference, config, out = sys.argv[1:]
board, annotations = alpaca_eval.evaluate(
    model_outputs=own, reference_outputs=reference, annotators_config=config,
    fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None, is_cache_leaderboard=False,
    is_return_instead_of_print=True, output_path=None, caching_path=None,
)
json.dump({"board": board.to_dict("records"), "annotations": annotations}, open(out, "w"))
"""


@pytest.fixture
def outputs(tmp_path):
    """Answers of a model and a baseline, as `eval.answer` writes them: (instructions, baseline file, model file)."""
    comparisons = make_pairs(60)
    rows = [{"dataset": "d", "instruction": comparison.prompt[0]["content"]} for comparison in comparisons]
    baseline = [row | {"output": comparison.first, "generator": "base"} for row, comparison in zip(rows, comparisons)]
    own = [row | {"output": comparison.second, "generator": "ours"} for row, comparison in zip(rows, comparisons)]
    write_json(tmp_path / "base.json", baseline)
    write_json(tmp_path / "own.json", own)
    return [Question(row["instruction"], (row["instruction"],), "d", row) for row in rows]


def test_alpaca_eval_evaluates_our_answers_and_gives_the_very_same_preferences(tmp_path, outputs, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    with Endpoint() as endpoint:
        (tmp_path / "clients.yaml").write_text(
            yaml.safe_dump({"default": [{"api_key": KEY, "base_url": endpoint.url}]})
        )
        settings = {
            "prompt_template": str(package_file("alpaca_eval", ALPACAEVAL2_FILE, "alpaca-eval")),
            "fn_completions": "openai_completions",
            "completions_kwargs": {"model_name": "loopback", "client_config_path": str(tmp_path / "clients.yaml")}
            | {"max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": 5, "num_procs": 4},
            "fn_completion_parser": "logprob_parser",
            "completion_parser_kwargs": {
                "numerator_token": "m",
                "denominator_tokens": ["m", "M"],
                "is_binarize": False,
            },
            "completion_key": "completions_all",
            "batch_size": 1,
        }
        (tmp_path / "configs.yaml").write_text(yaml.safe_dump({"loopback": settings}))
        files = [tmp_path / name for name in ("own.json", "base.json", "configs.yaml", "theirs.json")]
        environment = os.environ | {"OPENAI_API_KEY": KEY}
        done = subprocess.run(
            [sys.executable, "-c", ALPACA_EVAL, *files], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        base, own = read_json(tmp_path / "base.json"), read_json(tmp_path / "own.json")
        asker = make_judge(endpoint.url, tmp_path / "s.sqlite")
        ours = judge_alpacaeval2(asker, outputs, base, own)
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    found = {row["instruction"]: row["preference"] for row in theirs["annotations"]}
    readable = [row for row in ours if row["preference"] is not None]
    assert len(readable) > 50
    for row in readable:
        assert found[row["instruction"]] == pytest.approx(row["preference"], abs=1e-12)
    assert all(found.get(row["instruction"]) is None or found[row["instruction"]] != found[row["instruction"]]
               for row in ours if row["preference"] is None)  # fmt: skip
    # Our scorer reads their annotations, and the scores agree.
    score = alpacaeval2.score([row for row in theirs["annotations"] if row["preference"]])
    assert score["win_rate"] == pytest.approx(theirs["board"][0]["win_rate"])
    assert score["win_rate"] == pytest.approx(alpacaeval2.score(ours)["win_rate"])


def test_fastchat_reads_our_grades(tmp_path):
    class Grader:
        name = "grader"

        def grade(self, conversations):
            from eval.judges import Judgment

            values = [None if i == 3 else i % 10 + 1 for i, _ in enumerate(conversations)]
            return [Judgment(value, f"[[{value}]]", "?", {"template": "single-v1"}) for value in values]

    asked = [Question(str(81 + i), ("a", "b"), "writing", {"question_id": 81 + i}) for i in range(10)]
    answers = [{"question_id": 81 + i, "model_id": "ours", "choices": [{"turns": ["x", "y"]}]} for i in range(10)]
    rows = judge_mtbench(Grader(), asked, [], answers, EvaluationConfig())
    assert sum(row["score"] == -1 for row in rows) == 1
    write_jsonl(tmp_path / "g.jsonl", rows)
    code = (
        "import argparse; from fastchat.llm_judge.show_result import display_result_single as show;"
        f"show(argparse.Namespace(input_file={str(tmp_path / 'g.jsonl')!r}, bench_name='mt_bench', model_list=None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = float(done.stdout.split("Average")[1].split("ours")[1].split()[0])
    questions = [{"question_id": 81 + i, "category": "writing"} for i in range(10)]
    (scored,) = mtbench.score(rows, questions)["models"]
    assert scored["average"] == pytest.approx(shown, abs=1e-6)
    assert scored["n_unparsed"] == 1
