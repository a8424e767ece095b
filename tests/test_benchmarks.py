"""A benchmark is one folder: no other code names it, and what depends on it is found by following imports."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import copy_project, make_policy, make_tokenizer
from synthetic_results import FakeMethod, write_results

from eval.benchmark import benchmark, benchmarks, judging_of, questions_of, samples_of, score_of
from metaapo import PROJECT, provenance
from metaapo.benchmarks import declared, known_benchmarks
from metaapo.config import ConfigError
from metaapo.data import read_json, read_jsonl

NAMES = ("alpacaeval2", "arenahard", "mtbench", "pooled")
OFFERED = {
    questions_of: "read from_world package_questions hub_questions temperature answer_records question_of",
    judging_of: "judge_answers unreadable texts readings orders",
    score_of: "score_models",
    samples_of: "rows",
}


def run(folder, *arguments, fails=False):
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stdout + done.stderr


# --- what a benchmark declares -------------------------------------------------------------------------------------


def test_every_folder_that_declares_a_benchmark_is_found():
    assert tuple(known_benchmarks()) == NAMES
    assert {name: found.title for name, found in benchmarks().items()} == {
        "alpacaeval2": "AlpacaEval 2",
        "arenahard": "Arena-Hard",
        "mtbench": "MT-Bench",
        "pooled": "Pooled questions",
    }
    assert [name for name, found in benchmarks().items() if found.primary] == ["pooled"]


def test_the_estimate_reads_what_the_declaration_says_without_importing_it():
    for name, found in benchmarks().items():
        assert declared(name, "official_size") == found.official_size
        assert declared(name, "turns", default=1) == found.turns
        assert declared(name, "world_questions") == found.world_questions
        assert declared(name, "primary", default=False) == found.primary


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_offers_every_stage_with_the_same_arguments(name):
    reference = NAMES[0]
    pairwise = {judging_of: " compare swaps", questions_of: " package_baseline"}
    for stage, offered in OFFERED.items():
        wanted = offered + (pairwise.get(stage, "") if benchmark(name).pairwise else "")
        for function in wanted.split():
            ours, first = (getattr(stage(which), function) for which in (name, reference))
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(first).parameters)
    assert benchmark(name).raw_metric in {column.metric for column in benchmark(name).columns}


def test_an_unknown_benchmark_is_reported_with_the_known_ones():
    with pytest.raises(ConfigError, match="'mtbnech': no folder of eval/ declares it; known: alpacaeval2, arenahard"):
        benchmark("mtbnech")


def test_declarations_import_nothing_heavy():
    code = "import sys; from eval.benchmark import benchmarks; benchmarks(); heavy = {'scipy', 'torch', 'httpx'};"
    code += "assert not {'numpy', *heavy} & set(sys.modules);"
    code += "import eval.checkpoints, eval.judges.catalogue; assert not heavy & set(sys.modules)"
    run(PROJECT, "-c", code)


# --- no other code names one ---------------------------------------------------------------------------------------


def named_in(node):
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value in NAMES}


def decisions(tree):
    """Benchmarks' names in comparisons, in keys of dictionaries and in subscripts: (line, name)."""
    for node in ast.walk(tree):
        parts = []
        if isinstance(node, ast.Compare | ast.MatchValue):
            parts = [node]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        for part in parts:
            yield from ((node.lineno, name) for name in named_in(part))


def test_no_other_module_decides_by_a_benchmarks_name():
    files = [path for room in ("metaapo", "baselines", "eval", "reports") for path in (PROJECT / room).rglob("*.py")]
    own = {PROJECT / "eval" / name for name in NAMES}
    assert len(files) > 60
    found = [
        f"{path.relative_to(PROJECT)}:{line}: {name}"
        for path in files
        if path.parent not in own
        for line, name in decisions(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


@pytest.mark.parametrize("code", ["x == 'mtbench'", "x in ('a', 'mtbench')", "{'mtbench': 1}", "table['mtbench']"])
def test_a_decision_by_name_is_detected(code):
    assert list(decisions(ast.parse(code))) == [(1, "mtbench")]


# --- what results depend on ----------------------------------------------------------------------------------------

STAGES = {
    "answers": ("eval.answer", "eval.{}.questions"),
    "gold judgments": ("eval.judge", "eval.{}.judging", "eval.judges.gold", "metaapo.worlds.tiny.gold"),
    "endpoint judgments": ("eval.judge", "eval.{}.judging", "eval.judges.openai"),
    "scores": ("eval.score", "eval.{}.score"),
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project whose hashes are compared."""
    copy_project(tmp_path)
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget():
    for cached in (provenance._source, provenance.imports_of, provenance._statements):
        cached.cache_clear()


def hashes():
    forget()
    return {
        (stage, name): provenance.code_hash(*(module.format(name) for module in modules))
        for stage, modules in STAGES.items()
        for name in NAMES
    }


def put_first_into(path, function, statement):
    """Insert a statement at the start of a function."""
    text = path.read_text()
    found = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == function)
    lines = text.splitlines(keepends=True)
    at = found.body[1 if ast.get_docstring(found) else 0]
    lines.insert(at.lineno - 1, " " * at.col_offset + statement + "\n")
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("file", "function", "changed"),
    [
        ("metaapo/models/generate.py", "generate", [("answers", name) for name in NAMES]),
        ("eval/answer.py", "answer_questions", [("answers", name) for name in NAMES]),
        ("eval/mtbench/questions.py", "temperature", [("answers", "mtbench")]),
        (
            "eval/arenahard/judging.py",
            "unreadable",
            [("gold judgments", "arenahard"), ("endpoint judgments", "arenahard")],
        ),
        ("eval/judges/client.py", "ask", [("endpoint judgments", name) for name in NAMES]),
        ("eval/judges/gold.py", "_reason", [("gold judgments", name) for name in NAMES]),
        ("eval/alpacaeval2/length_control.py", "refit", [("scores", "alpacaeval2")]),
        ("eval/arenahard/samples.py", "rows", []),
        ("reports/page.py", "build", []),
    ],
)
def test_a_change_makes_only_what_it_concerns_out_of_date(project, file, function, changed):
    before = hashes()
    put_first_into(project / file, function, "raise SystemExit")
    after = hashes()
    assert [key for key in before if before[key] != after[key]] == changed


@pytest.mark.parametrize("name", NAMES)
def test_a_new_title_or_margin_makes_no_answer_judgment_or_score_out_of_date(project, name):
    before = hashes()
    path = project / "eval" / name / "__init__.py"
    changed = re.sub(r"margin=[\d.]+", "margin=9.0", path.read_text()).replace("title=", "title='New ' + ")
    assert changed.count("9.0") == changed.count("New") == 1
    path.write_text(changed)
    assert hashes() == before
    path.write_text(changed + "\n\ndef more():\n    return 1\n")
    assert hashes() != before


def test_a_comment_makes_nothing_out_of_date(project):
    before = hashes()
    for path in (project / "eval").rglob("*.py"):
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert hashes() == before


def prepared(folder, **settings):
    """A synthetic experiment in a copy of the project, with weights for every checkpoint; returns its configuration."""
    methods = {"dpo": FakeMethod(54, (0.0,)), "metaapo": FakeMethod(60, (0.5,), learns=True)}
    path = Path(write_results(folder, methods, seeds=(0,), iterations=1, questions=6, benchmarks=("alpacaeval2",)))
    document = yaml.safe_load(path.read_text())
    document["results_dir"] = "results"
    document["evaluation"] |= {"max_new_tokens": 6} | settings
    path.write_text(yaml.safe_dump(document))
    root = folder / "results" / "synthetic"
    for model in (root / "world0" / "sft", *(root / "runs").glob("*/*/*/iter1/")):
        model = model if model.name == "sft" else model / "model"
        make_policy().save_pretrained(model)
        make_tokenizer().save_pretrained(model)
    return path


def test_finished_answers_are_not_reused_after_generation_changed(tmp_path):
    copy_project(tmp_path)
    command = ("-m", "eval.answer", "--config", prepared(tmp_path), "--run", "dpo/budget1.0/seed0")
    run(tmp_path, *command)
    path = tmp_path / "eval" / "answer.py"
    path.write_text(
        path.read_text().replace('"""A seed that', '"""Another docstring, of a seed that') + "# A remark.\n"
    )
    assert "all answers are finished, reused" in run(tmp_path, *command)
    put_first_into(path, "answer_questions", "raise SystemExit('asked again')")
    assert "asked again" in run(tmp_path, *command, fails=True)


# --- one folder adds a benchmark -----------------------------------------------------------------------------------

DUEL = {
    "__init__.py": '''
"""Duel: the model's answer against the SFT policy's, by preference."""

from eval.benchmark import Benchmark, Column

BENCHMARK = Benchmark(
    title="Duel", extension="jsonl", pairwise=True, scale=(0.0, 100.0), unit="points", item_scale=100.0, margin=1.0,
    digits=1, raw_metric="duels_won", columns=(Column("duels_won", "won", "duels won"),), official_size=6,
    world_questions="mixed", world_baseline="sft",
)
''',
    "questions.py": """
from eval.questions import Question


def read(row, where):
    return Question(row["name"], (row["ask"],), "duel", row)


def from_world(row):
    return {"name": f"duel-{row['id']}", "ask": row["turns"][0]}


def temperature(question, settings):
    return 1.0


def answer_records(questions, answers, model, settings, in_world):
    return [{"name": q.id, "by": model, "said": turns[0]} for q, turns in zip(questions, answers)]


def question_of(record):
    return record.get("name")
""",
    "judging.py": """
from eval.judges import Comparison


def judge_answers(judge, questions, baseline, own, settings):
    asked = [
        Comparison([{"role": "user", "content": q.turns[0]}], b["said"], o["said"], q.id, models=(b["by"], o["by"]))
        for q, b, o in zip(questions, baseline, own)
    ]
    return [
        {"name": c.question, "by": c.models[1], "against": c.models[0], "won": j.value and j.value - 1}
        for c, j in zip(asked, judge.prefer(asked))
    ]


def unreadable(records):
    return sum(row["won"] is None for row in records)


def texts(answer):
    return [answer["said"]]


def readings(record):
    return [[float("nan") if record["won"] is None else record["won"]]]


def orders(record):
    return None


def compare(judge, comparisons):
    return judge.prefer(comparisons)


def swaps(comparison):
    return False
""",
    "score.py": """
from statistics import fmean

from eval.benchmark import Scores, metric


def score_models(judged, settings, seed):
    rows, items = {}, []
    for model, records in judged.judgments.items():
        won = 100 * fmean(row["won"] for row in records)
        rows[model] = {"metrics": {"duels_won": metric(won, won - 1, won + 1, 0.5)}, "n": len(records), "n_failed": 0}
        rows[model] |= {"mean_length": 5.0, "position_inconsistency": None}
        items += [{"model": model, "question": r["name"], "value": r["won"], "length": 5} for r in records]
    return Scores("duel-1", rows, items, "sft")
""",
    "samples.py": """
def rows(answers, judgments):
    won = {row["name"]: row["won"] for row in judgments}
    return [(row["name"], [row["said"]], [f"won {won.get(row['name'])}"], won.get(row["name"])) for row in answers]
""",
}
CARRY = """
import sys
from eval.answer import answer_run
from eval.checkpoints import evaluated_runs, judged_runs
from eval.judge import judge_run
from eval.judge_card import judge_card
from eval.judge_checks import check_judge
from eval.score import score_benchmark
from metaapo.data import write_json
from metaapo.experiment import load
from reports.__main__ import build
experiment = load(sys.argv[1])
for run in evaluated_runs(experiment):
    answer_run(experiment, run)
for benchmark in experiment.benchmarks:
    for run in judged_runs(experiment, benchmark):
        judge_run(experiment, "gold", benchmark, run)
    score_benchmark(experiment, benchmark, "gold")
checks = check_judge(experiment, "gold", "duel", 6)
assert checks["orders"]["consistent"] == 1
write_json(experiment.results / "judge_checks" / "duel" / "gold.json", checks)
write_json(experiment.results / "judges" / "gold" / "judge_card.json", judge_card(experiment, "gold"))
build(experiment)
"""


def test_one_new_folder_is_answered_judged_scored_and_reported(tmp_path):
    copy_project(tmp_path)
    for name, text in DUEL.items():
        (tmp_path / "eval" / "duel").mkdir(exist_ok=True)
        (tmp_path / "eval" / "duel" / name).write_text(text)
    config = prepared(tmp_path, benchmarks=["alpacaeval2", "duel"])
    run(tmp_path, "-c", CARRY, config)
    root = tmp_path / "results" / "synthetic"
    model = "metaapo/budget1.0/seed0"
    answers = read_jsonl(root / "answers" / "duel" / model / "iter1.jsonl")
    assert [row["name"] for row in answers] == [f"duel-{i}" for i in range(6)]
    judgments = read_jsonl(root / "judgments" / "duel" / "gold" / model / "iter1.jsonl")
    rows = read_json(root / "scores" / "duel" / "gold.json")["rows"]
    (own,) = [row for row in rows if row["method"] == "metaapo"]
    won = 100 * sum(row["won"] for row in judgments) / 6
    assert own["metrics"]["duels_won"]["value"] == pytest.approx(won)
    assert f"metaapo,1.0,0,0,1,duel,duel-1,gold,duels_won,{own['metrics']['duels_won']['value']}" in (
        root / "scores.csv"
    ).read_text(encoding="utf-8")
    claim = next(c for c in read_json(root / "claims.json") if c["id"] == "C1")
    assert "duel" in {part["benchmark"] for part in claim["parts"]}
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    assert "Duel won" in page
    assert "won: duels won" in page
    assert '<article class="judge" id="judge-gold">' in page
    plan = ("-m", "metaapo.estimate", "--config", config)
    assert "answer" in run(tmp_path, *plan)
