"""Files in the Every Eval Ever schema: complete, joined by id, readable, and valid for the schema's validator."""

import hashlib
import importlib.util
import subprocess
import sys
import uuid

import pytest
from judged_answers import judge_and_score, write_answers

from eval import exchange
from eval.benchmark import benchmark
from eval.exchange import export, sample_id
from eval.rank_agreement import read_items
from eval.sample_logs import compare, read_samples
from metaapo.data import read_json, read_jsonl

JUDGES = {"gold": {"kind": "gold"}, "llm": {"kind": "openai", "model": "org/m", "url": "http://localhost:1/v1"}}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    evaluation = {"benchmarks": ["arenahard", "mtbench"]}
    experiment = write_answers(folder, JUDGES, evaluation, methods={"dpo": {}, "online_dpo": {}})
    judge_and_score(experiment)
    return experiment


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    assert len(export(experiment, "gold", "My lab", folder)) == 2 * 2 * 3  # two files, two benchmarks, three models
    return folder


def aggregates(folder):
    return {path: read_json(path) for path in sorted(folder.rglob("*.json"))}


def test_every_metric_of_every_model_is_exported_with_its_interval(experiment, folder):
    scores = {}
    for name in experiment.benchmarks:
        for row in read_json(experiment.results / "scores" / name / "gold.json")["rows"]:
            for metric, found in row["metrics"].items():
                scores[row["method"], f"{name}.{metric}"] = found
    exported = {
        (document["model_info"]["additional_details"]["method"], result["metric_config"]["metric_id"]): result
        for document in aggregates(folder).values()
        for result in document["evaluation_results"]
    }
    assert exported.keys() == {key for key, found in scores.items() if found["value"] is not None}
    for key, result in exported.items():
        assert result["score_details"]["score"] == scores[key]["value"]
        if scores[key]["ci_low"] is not None:
            interval = result["score_details"]["uncertainty"]["confidence_interval"]
            assert (interval["lower"], interval["upper"]) == (scores[key]["ci_low"], scores[key]["ci_high"])


def test_samples_average_to_the_raw_metric_that_they_name(folder):
    for path, document in aggregates(folder).items():
        detail = document["detailed_evaluation_results"]
        samples = path.with_name(f"{path.stem}_samples.jsonl")
        assert samples.relative_to(folder).as_posix() == detail["file_path"]
        assert hashlib.sha256(samples.read_bytes()).hexdigest() == detail["checksum"]
        rows = read_jsonl(samples)
        assert len(rows) == detail["total_rows"]
        assert {row["evaluation_id"] for row in rows} == {document["evaluation_id"]}
        (named,) = {row["evaluation_result_id"] for row in rows}
        result = next(r for r in document["evaluation_results"] if r["evaluation_result_id"] == named)
        scores = [row["evaluation"]["score"] for row in rows]
        assert all(0 <= score <= result["metric_config"]["max_score"] for score in scores)
        if result["metric_config"]["metric_id"] == "mtbench.average":  # Arena-Hard counts clear verdicts three times
            assert sum(scores) / len(scores) == pytest.approx(result["score_details"]["score"])


def test_the_judges_words_are_stored_with_the_answer_they_refer_to(folder):
    path = next(p for p in sorted(folder.rglob("*_samples.jsonl")) if "mtbench" in str(p))
    for row in read_jsonl(path):
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2
        assert row["output"] is None
        assert "Rating: [[" in row["metadata"]["judgments"]
        assert row["answer_attribution"][0]["extraction_method"] == "gold"


def test_a_small_worlds_questions_are_not_called_the_benchmarks(folder):
    assert {path.parts[-4] for path in aggregates(folder)} == {"arenahard-proxy-tiny", "mtbench-proxy-tiny"}


def test_the_same_results_give_the_same_files(experiment, folder, tmp_path):
    export(experiment, "gold", "My lab", tmp_path)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.json*")} for root in (folder, tmp_path)
    )
    assert first == second
    for path in first:
        assert uuid.UUID(path.name.removesuffix(".json").removesuffix("_samples.jsonl")).version == 4


def test_an_exported_model_is_compared_like_any_log(experiment, folder):
    paths = sorted(folder.rglob("mtbench*/**/*_samples.jsonl"))
    logs = {path.parent.name.split("-budget")[0]: read_samples(path) for path in paths}
    found = compare(logs["test-dpo"], logs["test-online_dpo"])
    items = read_items(experiment.results / "scores/mtbench/gold.items.csv.gz")
    means = [sum(values.values()) / len(values) for (method, *_), values in items.items() if "dpo" in method]
    assert found["difference"] == pytest.approx(means[0] - means[1])


def test_a_language_model_judge_is_recorded_with_its_endpoint(experiment):
    from eval.judges.config import find_judge

    config = find_judge(experiment.evaluation.judges_file, "llm")
    scores = {"judge": "llm", "version": "v", "baseline": None}
    found = exchange._metric_config(experiment, "mtbench", benchmark("mtbench"), "average", scores, config)
    (judge,) = found["llm_scoring"]["judges"]
    assert judge["model_info"]["id"] == "org/m"
    assert judge["model_info"]["additional_details"]["deployment_type"] == "self_deployed"


def test_a_question_without_an_id_is_named_by_its_hash():
    assert sample_id("q81") == "q81"
    assert sample_id("word " * 20) == hashlib.sha256(("word " * 20).encode()).hexdigest()[:16]


@pytest.mark.skipif(
    importlib.util.find_spec("every_eval_ever") is None,
    reason="pip install --no-deps --ignore-requires-python every-eval-ever",
)
def test_the_schemas_validator_finds_no_error(folder):
    command = [sys.executable, "-m", "every_eval_ever", "validate", "--format", "json", "data/**/*.json*"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert '"valid": true' in done.stdout
    assert '"valid": false' not in done.stdout
