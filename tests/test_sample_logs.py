"""Logs of other harnesses are read, and two models are compared on the questions they have in common."""

import json
import zipfile

import pytest
import yaml

import metaapo_cli
from eval import sample_logs
from eval.sample_logs import compare, read_samples
from eval.score import items_csv
from metaapo.data import DataError, write_bytes, write_json, write_jsonl


def inspect_log(scores):
    samples = [
        {"id": id, "epoch": epoch, "scores": {"match": {"value": value}}}
        for id, values in scores.items()
        for epoch, value in enumerate(values, start=1)
    ]
    return {"version": 2, "eval": {"task": "t", "model": "m"}, "samples": samples}


def write_archive(path, log, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", json.dumps({"eval": log["eval"]}))
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))


def test_inspect_grades_become_numbers_and_epochs_are_averaged(tmp_path):
    write_json(tmp_path / "log.json", inspect_log({1: ["C", "I"], "b": ["P"], "c": ["N"], "d": [0.25], "e": [True]}))
    assert read_samples(tmp_path / "log.json") == {"match": {"1": 0.5, "b": 0.5, "c": 0, "d": 0.25, "e": 1}}


def test_an_archive_reads_like_the_json_log(tmp_path):
    log = inspect_log({"a": ["C"], "b": ["I"]})
    write_json(tmp_path / "log.json", log)
    write_archive(tmp_path / "log.eval", log)
    assert read_samples(tmp_path / "log.eval") == read_samples(tmp_path / "log.json")


def test_a_score_with_several_parts_gives_several_metrics(tmp_path):
    log = inspect_log({"a": [{"helpful": 3, "safe": "C"}], "b": [{"helpful": 4, "safe": "I"}]})
    write_json(tmp_path / "log.json", log)
    found = read_samples(tmp_path / "log.json")
    assert found == {"match.helpful": {"a": 3, "b": 4}, "match.safe": {"a": 1, "b": 0}}


def test_a_harness_sample_is_read_by_its_own_list_of_metrics(tmp_path):
    rows = [{"doc_id": i, "acc": float(i), "acc_norm": 1.0, "metrics": ["acc", "acc_norm"]} for i in range(2)]
    write_jsonl(tmp_path / "samples_arc.jsonl", rows)
    found = read_samples(tmp_path / "samples_arc.jsonl")
    assert found == {"acc": {"0": 0, "1": 1}, "acc_norm": {"0": 1, "1": 1}}


def test_filters_of_one_metric_are_kept_apart(tmp_path):
    rows = [{"doc_id": 0, "filter": f, "metrics": ["em"], "em": v} for f, v in (("strict", 0), ("flexible", 1))]
    write_jsonl(tmp_path / "samples_gsm8k.jsonl", rows)
    assert read_samples(tmp_path / "samples_gsm8k.jsonl") == {"em,strict": {"0": 0}, "em,flexible": {"0": 1}}


def write_items(path, values):
    keys = {"method": "dpo", "budget": "1.0", "seed": 0, "iteration": 3}
    write_bytes(path, items_csv([keys | {"question": str(q), "value": v} for q, v in enumerate(values)]))


def test_this_projects_score_file_is_compared_with_another_tools_log(tmp_path, capsys):
    write_items(tmp_path / "gold.items.csv.gz", [1.0, 0.5, 0.0, 1.0])
    write_jsonl(tmp_path / "samples_x.jsonl", [{"doc_id": q, "win": 0.5, "metrics": ["win"]} for q in range(1, 5)])
    files = [str(tmp_path / name) for name in ("gold.items.csv.gz", "samples_x.jsonl")]
    arguments = ["--a", files[0], "--a-model", "dpo/1.0/0/3", "--b", files[1], "--out", str(tmp_path / "out.json")]
    metaapo_cli.main(["compare", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["only_in_a"], found["only_in_b"]) == (3, 1, 1)
    assert found["difference"] == pytest.approx(0.0)
    assert found == yaml.safe_load((tmp_path / "out.json").read_text())


def test_a_model_ahead_on_every_question_is_ahead():
    found = compare({"acc": dict.fromkeys("abcd", 1.0)}, {"acc": dict.fromkeys("abcd", 0.0)})
    assert (found["difference"], found["ci_low"], found["ci_high"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.json", "{}", "not a log of inspect_ai"),
        ("x.json", '{"eval": {}, "samples": []}', "no sample values found"),
        ("x.json", '{"eval": {}, "samples": [{}]}', "'id' is missing"),
        ("x.eval", "no archive", "expected an .eval log"),
        ("samples_x.jsonl", '{"acc": 1}', "'doc_id' is missing"),
        ("samples_x.jsonl", '{"doc_id": 1, "metrics": ["acc"], "acc": "high"}', "no sample values found"),
        ("y_samples.jsonl", '{"sample_id": "1"}', "is missing"),
        ("samples_x.jsonl", '{"doc_id": 1, "acc": 1}\n{"doc_id": 1, "acc": 0}', "two values of 'acc'"),
    ],
)
def test_a_file_of_unknown_kind_is_an_error_in_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_samples(tmp_path / name)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_logs, "MAX_UNPACKED", 100)
    write_archive(tmp_path / "log.eval", inspect_log({"a": ["C" * 200]}))
    with pytest.raises(DataError, match="unpacks to"):
        read_samples(tmp_path / "log.eval")


def test_several_common_metrics_require_a_choice():
    logs = {"acc": {"a": 1.0, "b": 0.0}, "f1": {"a": 1.0, "b": 0.0}}
    with pytest.raises(DataError, match="acc, f1"):
        compare(logs, logs)
    assert compare(logs, logs, "f1")["difference"] == 0


def test_logs_of_different_questions_are_not_compared():
    with pytest.raises(DataError, match="0 samples in common"):
        compare({"acc": {"a": 1.0}}, {"acc": {"b": 1.0}})


def test_an_unknown_model_is_reported_with_those_in_the_file(tmp_path):
    write_items(tmp_path / "gold.items.csv.gz", [1.0, 0.5])
    with pytest.raises(DataError, match="dpo/1.0/0/3"):
        read_samples(tmp_path / "gold.items.csv.gz", "dpo/1.0/0/4")
