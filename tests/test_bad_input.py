"""Input that is wrong ends in one sentence: no traceback, and no number made of it silently."""

import gzip
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import experiment_document

import metaapo_cli
from eval.judges import Comparison, Conversation
from eval.judges.answers import Answer
from eval.judges.config import read_judges
from eval.judges.openai import _preference
from eval.judges.replay import ReplayJudge
from eval.sample_logs import read_samples
from metaapo.config import ConfigError
from metaapo.data import DataError, read_json, read_records, write_json, write_jsonl
from metaapo.experiment import Run, load, resolve

ROOT = Path(__file__).resolve().parents[1]


def annotation(i=0, **changes):
    row = {"instruction": f"Question {i}?", "output_1": "one", "output_2": "two", "generator_1": "base"}
    return row | {"generator_2": "m", "annotator": "j", "preference": 1.2 + i / 100, "dataset": "d"} | changes


def game(i=0, games=("A>B", "B>A"), **changes):
    row = {"question_id": f"q{i}", "model": "m", "judge": "j"}
    return row | {"games": [{"score": g, "judgment": ""} for g in games]} | changes


def grade(i=81, turn=1, **changes):
    return {"question_id": i, "model": "m", "judge": ["j", "p"], "score": 7, "turn": turn, "judgment": ""} | changes


def said(i=0, model="m", **changes):
    counts = {"token_len": 3 + i, "header_count": {"h1": i}, "list_count": {}, "bold_count": {"**": 1}}
    return {
        "question_id": f"q{i}",
        "model_id": model,
        "choices": [{"turns": ["text"]}],
        "conv_metadata": counts,
    } | changes


def run_alpacaeval2(folder, rows, *more, text=None):
    path = folder / "annotations.json"
    path.write_bytes(text if text is not None else json.dumps(rows).encode())
    return metaapo_cli.main(["score", "alpacaeval2", "--annotations", str(path), *more])


def run_arenahard(folder, rows, answers=(), *more, text=None):
    path = folder / "judgments.jsonl"
    path.write_bytes(text if text is not None else json.dumps(rows).encode())
    (folder / "answers.json").write_text(json.dumps(list(answers)))
    given = ["--answers", str(folder / "answers.json")] if answers else []
    return metaapo_cli.main(
        ["score", "arenahard", "--judgments", str(path), *given, "--baseline", "base", "--version", "v0.1-2024", *more]
    )


def run_mtbench(folder, rows, answers=(), *more, text=None):
    path = folder / "judgments.jsonl"
    path.write_bytes(text if text is not None else json.dumps(rows).encode())
    (folder / "answers.json").write_text(json.dumps(list(answers)))
    given = ["--answers", str(folder / "answers.json")] if answers else []
    return metaapo_cli.main(["score", "mtbench", "--judgments", str(path), *given, *more])


ODD = {
    "a truth value": True,
    "a text": "seven",
    "a list": [7],
    "a mapping": {"score": 7},
    "an integer of 400 digits": 10**399,
}
ODD_TEXTS = {"a number": 7, "a truth value": True, "a list": ["m"], "a mapping": {"m": 1}}
ODD_FILES = {
    "a broken gzip file": gzip.compress(b"[]" * 1000)[:-20] + b"\xff" * 8,
    "a cut gzip file": gzip.compress(os.urandom(3000))[:1000],
    "deep nesting": b"[" * 50_000 + b"]" * 50_000,
    "an integer of 5,000 digits": b'[{"score": ' + b"9" * 5000 + b"}]",
    "infinity": b'[{"preference": Infinity, "score": Infinity}]',
    "a number beyond a float": b'[{"preference": 1e999, "score": -1e999}]',
    "no UTF-8": b"\xff\xfe[]",
    "no JSON": b"{'a': 1}",
    "a cut file": b'[{"preference": 1',
    "a list of numbers": b"[1, 2]",
    "a number": b"7",
    "a text": b'"text"',
    "an empty list": b"[]",
    "nothing": b"",
    "a NUL": b"\x00",
}
CASES = []


def case(name, run, *arguments, **keywords):
    CASES.append(pytest.param(run, arguments, keywords, id=name.replace(" ", "-")))


for what, content in ODD_FILES.items():
    for name, run in (("alpacaeval2", run_alpacaeval2), ("arenahard", run_arenahard), ("mtbench", run_mtbench)):
        case(f"{name}: {what} for a file", run, [], text=content)
for what, value in ODD.items():
    case(f"alpacaeval2: {what} as preference", run_alpacaeval2, [annotation(preference=value)])
    case(f"mtbench: {what} as score", run_mtbench, [grade(score=value)])
    if value != "seven":
        case(f"arenahard: {what} as score", run_arenahard, [game(games=(value, "A>B"))])
    case(f"alpacaeval2: {what} as length", run_alpacaeval2, [annotation(len_1=value)])
    case(f"arenahard: {what} as tokens", run_arenahard, [game()],
         [said(conv_metadata={**said()["conv_metadata"], "token_len": value}), said(model="base")])  # fmt: skip
for what, value in ODD_TEXTS.items():
    case(f"alpacaeval2: {what} as model", run_alpacaeval2, [annotation(generator_2=value)])
    case(f"alpacaeval2: {what} as instruction", run_alpacaeval2, [annotation(instruction=value)])
    case(f"alpacaeval2: {what} as output", run_alpacaeval2, [annotation(output_2=value)])
    case(f"arenahard: {what} as model", run_arenahard, [game(model=value)])
    case(f"arenahard: {what} as answer", run_arenahard, [game()], [said(choices=[{"turns": [value]}])])
    case(f"mtbench: {what} as model", run_mtbench, [grade(model=value)])
    case(f"mtbench: {what} as answer", run_mtbench, [grade()], [said(choices=[{"turns": [value]}])])
for what, value in {"a list": [1], "a mapping": {}, "a truth value": True, "a fraction": 1.5}.items():
    case(f"arenahard: {what} as question", run_arenahard, [game(question_id=value)])
    case(f"mtbench: {what} as question", run_mtbench, [grade(question_id=value)])
for what, value in {
    "no choices": [],
    "null": None,
    "no turns": [{}],
    "a text": "text",
    "no turn": [{"turns": []}],
}.items():
    case(f"arenahard: choices are {what}", run_arenahard, [game()], [said(choices=value)])
    case(f"mtbench: choices are {what}", run_mtbench, [grade()], [said(choices=value)])
for what, games in {"none": (), "one": ("A>B",), "three": ("A>B",) * 3}.items():
    case(f"arenahard: {what} of two games", run_arenahard, [game(games=games)])
case("arenahard: lower-case labels", run_arenahard, [game(games=("a>b", "B>A"))])
case("arenahard: games a text", run_arenahard, [game() | {"games": "A>B"}])
case("arenahard: a misspelt baseline", run_arenahard, [game()], [said(), said(model="bsae")])
case("arenahard: partial metadata", run_arenahard, [game()], [said(conv_metadata={"token_len": 3}), said(model="base")])
case("arenahard: a record twice", run_arenahard, [game(), game()])
case(
    "arenahard: negative tokens",
    run_arenahard,
    [game()],
    [said(conv_metadata={**said()["conv_metadata"], "token_len": -3})],
)
case("arenahard: messages empty", run_arenahard, [game()], [said(messages=[])])
case("alpacaeval2: a row twice", run_alpacaeval2, [annotation(), annotation(1), annotation()])
case("alpacaeval2: a row twice, contradicting", run_alpacaeval2, [annotation(), annotation(preference=2)])
case("alpacaeval2: no instruction", run_alpacaeval2, [{"preference": 1}])
case("mtbench: a row twice", run_mtbench, [grade(), grade(turn=2), grade()])
case("mtbench: turn 3", run_mtbench, [grade(turn=3)])
case("mtbench: turn a truth value", run_mtbench, [grade(turn=True)])
case("mtbench: an empty judge", run_mtbench, [grade(judge=[])])
case("mtbench: two judges", run_mtbench, [grade(), grade(turn=2, judge="other")])


@pytest.mark.parametrize(("run", "arguments", "keywords"), CASES)
def test_a_wrong_file_is_an_error_of_one_sentence(run, arguments, keywords, tmp_path, capsys):
    assert run(tmp_path, *arguments, **keywords) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 700


GOOD = [annotation(i) for i in range(12)]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--difficulty", "{}/blank.csv"], {"blank.csv": "instruction_difficulty\n" + "1\n" * 5 + '""\n' + "1\n" * 6}),
        (["--difficulty", "{}/inf.csv"], {"inf.csv": "instruction_difficulty\n" + "inf\n" * 12}),
        (["--difficulty", "{}/nan.csv"], {"nan.csv": "instruction_difficulty\n" + "nan\n" * 12}),
        (["--difficulty", "{}/text.csv"], {"text.csv": "instruction_difficulty\n" + "hard\n" * 12}),
        (["--difficulty", "{}/column.csv"], {"column.csv": "difficulty\n1\n"}),
        (["--difficulty", "{}/short.csv"], {"short.csv": "instruction_difficulty\n1\n"}),
        (["--difficulty", "{}/nothing.csv"], {"nothing.csv": ""}),
        (["--gamed", "{}/g.csv"], {"g.csv": "index,preference,std_delta_len,instruction_difficulty\n0,1,inf,1\n"}),
        (["--C", "0"], {}),
        (["--C", "nan"], {}),
        (["--C", "inf"], {}),
        (["--C", "weak"], {}),
        (["--model", "other"], {}),
        (["--out", "{}"], {}),
        (["--out", "/dev/null"], {}),
        (["--out", "{}/file/scores.json"], {"file": "no folder"}),
    ],
)  # fmt: skip
def test_a_wrong_option_of_a_scorer_is_an_error_of_one_sentence(arguments, files, tmp_path, capsys):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run_alpacaeval2(tmp_path, GOOD, *[argument.format(tmp_path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("scorer", ["alpacaeval2", "arenahard", "mtbench"])
@pytest.mark.parametrize("option", [["--seed", "-1"], ["--seed", "1.5"], ["--seed", str(2**40)]])
def test_a_seed_is_a_whole_number_from_zero(scorer, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        metaapo_cli.main(["score", scorer, *option])
    assert "argument --seed" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "-0.1", "1.1", "all"])
def test_coverage_is_a_share(value, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_mtbench(tmp_path, [grade()], (), "--min-coverage", value)
    assert "argument --min-coverage" in capsys.readouterr().err


def test_out_leaves_links_and_devices_alone(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(DataError, match="not a regular file"):
            write_json(tmp_path / name, {})
    assert target.read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


def test_a_lone_surrogate_is_read_and_written(tmp_path):
    (tmp_path / "in.json").write_text(r'[{"instruction": "\ud800 \ud83d\ude00"}]')
    assert read_records(tmp_path / "in.json") == [{"instruction": "\N{REPLACEMENT CHARACTER} \N{GRINNING FACE}"}]
    write_json(tmp_path / "out.json", ["\ud800"])
    assert read_json(tmp_path / "out.json") == ["\ud800"]
    write_jsonl(tmp_path / "out.jsonl", [{"text": "\udfff \N{GRINNING FACE}"}])
    assert read_records(tmp_path / "out.jsonl") == [{"text": "\N{REPLACEMENT CHARACTER} \N{GRINNING FACE}"}]


def test_grades_out_of_range_count_as_missing(tmp_path, capsys):
    rows = [grade(i, turn, score=95 if i < 89 else 6) for i in range(81, 161) for turn in (1, 2)]
    assert run_mtbench(tmp_path, rows) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["average"], model["partial"], model["n_out_of_range"], model["n_failed"]) == (6, True, 16, 16)


BAD_SETTINGS = {
    "experiment": ["..", ".", "a/b", "../up", "-rf", "", "a b", "$(touch X)", "x;y", 7],
    "results_dir": ["r$(touch X)", "r;touch X", "`touch X`", "a|b", "a\nb", "a&b", "-rf", "a>b", "{a}", "a'b", 'a"b'],
    "assets_dir": ["$(touch X)"],
    "evaluation": [{"judges": ["../../x"]}, {"judges": [".."]}, {"judges": ["$(touch X)"]}, {"judges": []}],
    "seeds": [[-1], ["a"], [0, 0], []],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD_SETTINGS.items() for v in values])
def test_no_name_leaves_the_results_folder_and_nothing_reaches_a_shell(key, value, tmp_path):
    document = experiment_document(tmp_path) | {key: value}
    with pytest.raises(ConfigError, match=key):
        resolve(document)


def test_snakemake_refuses_a_results_folder_that_a_shell_would_run(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "-s", ROOT / "Snakefile", "-d", tmp_path]
    command += ["--configfile", ROOT / "config/smoke.yaml", "--config", f"results_dir=r$(touch {tmp_path}/X)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert "results_dir" in done.stdout + done.stderr
    assert not (tmp_path / "X").exists()


def test_every_word_of_a_shell_command_is_quoted():
    """What Snakemake puts into a command, except numbers of its own and the launcher, which quotes its parts itself."""
    for path in [ROOT / "Snakefile", *ROOT.glob("*/**/*.smk")]:
        for line in path.read_text().splitlines():
            if re.match(r'\s*(shell\()?"', line) and ("python -m" in line or "--" in line or "{log" in line):
                for field in re.findall(r"\{([^{}]+)\}", line):
                    assert field.endswith(":q") or field in ("threads", "params.launch", "params.on_gpus"), (
                        path.name,
                        line,
                    )


def test_a_launcher_is_quoted(tmp_path):
    document = experiment_document(tmp_path, hardware={"launcher": "$(touch X).yaml"})
    assert resolve(document).hardware.launch.endswith(
        "accelerate launch --config_file '$(touch X).yaml' --num_processes 1 -m"
    )


@pytest.mark.parametrize("name", ["../../../x", "..", "a/b", "-x", "", "a b", "$(touch X)"])
def test_a_judge_cannot_be_named_out_of_its_folder(name, tmp_path):
    (tmp_path / "judges.yaml").write_text(yaml.safe_dump({name: {"kind": "gold"}}))
    with pytest.raises(ConfigError, match="cannot be a judge's name"):
        read_judges(tmp_path / "judges.yaml")


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "file:///etc/passwd"},
        {"url": "http://a b/"},
        {"url": ""},
        {"url": "http://:80/v1"},
        {"url": "http://[::1/v1"},
        {"url": "http://a:99999/v1"},
        {"max_dollars": -1},
        {"max_dollars": float("nan")},
        {"price": {"input": -1}},
        {"price": {"input": float("inf")}},
        {"concurrency": 0},
        {"concurrency": 10**6},
        {"timeout": float("inf")},
        {"parameters": {"max_tokens": "many"}},
        {"parameters": {"max_tokens": True}},
        {"parameters": {"model": "other"}},
        {"parameters": {"stream": True}},
        {"api": "soap"},
        {"api": "anthropic"},
        {"thinking_tokens": 100},
        {"api_key_env": "A B"},
        {"max_unreadable": 2},
        {"colour": "red"},
    ],
)
def test_a_judges_entry_is_checked_key_by_key(entry, tmp_path):
    (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"j": {"kind": "openai", "model": "m"} | entry}))
    with pytest.raises(ConfigError, match="judges.yaml: j"):
        read_judges(tmp_path / "judges.yaml")


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "a: [" * 5000,
        "x" * (2 << 20),
        "\x00",
        "- a\nb: c",
        "a: !!python/object/apply:os.system [ls]",
    ],
)
def test_a_yaml_file_that_expands_without_end_is_refused(text, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    for read in (load, read_judges):
        with pytest.raises(ConfigError, match="bomb.yaml"):
            read(tmp_path / "bomb.yaml")


@pytest.mark.parametrize(
    "run", ["..", "../budget1.0/seed0", "dpo/budgetnan/seed0", "dpo/budget1.0/seed-1", "dpo", "a/b/c/d"]
)
def test_a_run_is_named_by_method_budget_and_seed(run):
    with pytest.raises(ConfigError, match="expected METHOD/budgetB/seedS"):
        Run.parse(run)


@pytest.mark.parametrize("module", ["eval.judge", "eval.score"])
def test_an_unknown_benchmark_is_named(module, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(experiment_document(tmp_path / "r")))
    command = [sys.executable, "-m", module, "--config", tmp_path / "c.yaml", "--judge", "gold", "--benchmark", "../x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# --- one field wrong, in each file that is read ---------------------------------------------------------------------

ODD_FIELDS = {
    "null": None, "true": True, "a number": 7, "a negative number": -3, "400 digits": 10**399, "NaN": float("nan"),
    "infinity": float("inf"), "a blank text": " ", "a text": "seven", "a lone surrogate": "\ud800", "a NUL": "a\0b",
    "a long text": "x" * 10_000, "a list": [7], "an empty list": [], "a mapping": {"a": 1}, "an empty mapping": {},
    "a list in a list": [[[]]],
}  # fmt: skip
GAMES_2025 = [
    {
        "uid": f"u{i}",
        "category": "math",
        "judge": "j",
        "model": "m",
        "baseline": "base",
        "games": [{"score": "A>B", "judgment": {"answer": "[[A>B]]"}, "prompt": []}, None],
    }
    for i in range(3)
]
INSPECT = [{"id": i, "epoch": 1, "scores": {"match": {"value": {"a": "C", "b": 1}}}} for i in range(3)]
HARNESS = [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": 1.0} for i in range(3)]
EXCHANGED = [{"sample_id": f"{i}", "evaluation_name": "n", "evaluation": {"score": 1.0}} for i in range(3)]
ASKED = [{"role": "user", "content": "Question 0?"}]


def read_log(name, whole=lambda rows: rows):
    def read(folder, rows):
        path = folder / name
        lines = isinstance(rows, list) and path.suffix == ".jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(whole(rows)))
        return read_samples(path)

    return read


def replayed(ask):
    def read(folder, rows):
        (folder / "stored").mkdir()
        (folder / "stored/a.json").write_text(json.dumps(rows))
        return ask(ReplayJudge("old", str(folder / "stored")))

    return read


def replay_preference(judge):
    return judge.prefer([Comparison(ASKED, "one", "two", "q0", "", ("base", "m"), "alpacaeval2")])


def replay_verdict(judge):
    return judge.verdicts([Comparison(ASKED, "one", "two", "q0", "", ("base", "m"), "arenahard")])


def replay_grade(judge):
    messages = [*ASKED, {"role": "assistant", "content": "one"}]
    return judge.grade([Conversation(messages, question="81", model="m", benchmark="mtbench")])


def scored(run, *more):
    def read(folder, rows):
        if run(folder, rows, *more) == 2:
            raise DataError(sys.stderr.getvalue().removesuffix("\n"))

    return read


def scored_answers(run, judgments):
    return lambda folder, answers: scored(run, answers, "--style-control")(folder, judgments)


READERS = {
    "alpacaeval2": (scored(run_alpacaeval2), [annotation(i, len_1=3, len_2=4) for i in range(3)]),
    "arenahard 2024": (scored(run_arenahard), [game(i) for i in range(3)]),
    "arenahard 2025": (scored(run_arenahard, (), "--version", "v2.0-2025"), GAMES_2025),
    "arenahard answers": (
        scored_answers(run_arenahard, [game(i) for i in range(2)]),
        [said(i, model) for i in range(2) for model in ("m", "base")],
    ),
    "mtbench": (scored(run_mtbench), [grade(81, 1), grade(81, 2), grade(82)]),
    "replayed preferences": (replayed(replay_preference), [annotation()]),
    "replayed games": (replayed(replay_verdict), [game()]),
    "replayed grades": (replayed(replay_grade), [grade()]),
    "inspect": (read_log("log.json", lambda rows: {"eval": {}, "samples": rows}), INSPECT),
    "lm-eval": (read_log("samples_x.jsonl"), HARNESS),
    "Every Eval Ever": (read_log("x_samples.jsonl"), EXCHANGED),
}


def places(value, place=()):
    """Every place in a JSON value, the value's own included."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*place, key))


def replaced(value, place, new):
    if not place:
        return new
    changed = value.copy()
    changed[place[0]] = replaced(value[place[0]], place[1:], new)
    return changed


@pytest.mark.parametrize("name", READERS)
def test_one_wrong_field_of_one_record_is_no_traceback(name, tmp_path, monkeypatch):
    read, rows = READERS[name]
    read(tmp_path, rows)
    refusals = {}
    for n, (place, odd) in enumerate(itertools.product(places(rows[0]), ODD_FIELDS)):
        folder = tmp_path / str(n)
        folder.mkdir()
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        try:
            read(folder, [replaced(rows[0], place, ODD_FIELDS[odd]), *rows[1:]])
        except DataError as error:
            refusals[place, odd] = str(error)
    assert len(refusals) > n / 8
    assert not {case: text for case, text in refusals.items() if "\n" in text or len(text) > 700}


@pytest.mark.parametrize("value", [True, "-1", None, 0.1, float("nan"), float("-inf"), [0]])
def test_only_a_log_probability_weighs_a_preference(value):
    tokens = [{"token": "m", "logprob": value}, {"token": "M", "logprob": -1.0}]
    choice = {"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": tokens}]}}
    expected = 2.0 if value == float("-inf") else None  # a probability of zero is one
    assert _preference(Answer(choice), False).value == expected


@pytest.mark.parametrize("value", [True, "seven", [7], {}])
def test_a_stored_judgment_of_another_type_is_an_error(value, tmp_path):
    for ask, rows in ((replay_preference, [annotation(preference=value)]), (replay_grade, [grade(score=value)])):
        with pytest.raises(DataError, match="expected a number or null"):
            replayed(ask)(tmp_path, rows)
        shutil.rmtree(tmp_path / "stored")


def test_replayed_judgments_must_be_whole_and_agree(tmp_path):
    folder = tmp_path / "alpacaeval2"
    write_jsonl(folder / "a.jsonl", [annotation()])
    judge = ReplayJudge("old", str(tmp_path / "{benchmark}"))
    assert replay_preference(judge)[0].value == 1.2
    write_jsonl(folder / "b.jsonl", [annotation(preference=1.9)])
    with pytest.raises(DataError, match="contradict each other"):
        replay_preference(judge)
    (folder / "b.jsonl").write_text(json.dumps(annotation(1))[:-5])
    with pytest.raises(DataError, match="b.jsonl:1: not valid JSON"):
        replay_preference(judge)
