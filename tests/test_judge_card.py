"""A judge's card summarises its judgments, the checks, other judges, and warnings."""

import json
import random

import numpy as np
import pytest
from judged_answers import judge_and_score, write_answers

from eval.alpacaeval2 import judging as alpacaeval2
from eval.alpacaeval2.preferences import is_switched
from eval.arenahard import judging as arenahard
from eval.benchmark import benchmark
from eval.judge_card import compare_with, judge_card, length_association, spread_of
from eval.judge_checks import check_judge, graded_checks, pairwise_checks, prepare
from eval.judges import Judgment
from eval.judges.catalogue import clients_of, judge_settings, open_judge
from eval.judges.gold import GoldJudge
from eval.mtbench import judging as mtbench
from eval.score import items_csv
from metaapo.config import ConfigError
from metaapo.data import read_json, read_jsonl, write_bytes, write_json, write_jsonl
from reports.judge_cards import card_view

JUDGES = {
    "gold": {"kind": "gold"},
    "strict": {"kind": "replay", "path": "", "model": "gpt-4-0613"},
    "twice": {"kind": "gold", "repeats": 2, "orders": "both"},
    "jury": {"kind": "panel", "members": ["gold", "twice"]},
}
METHODS = {"dpo": {}, "online_dpo": {}, "metaapo": {"t_meta": 2}}


def strict_judgments(experiment, folder):
    """The gold judge's judgments, one grade lower, a tenth of them unreadable."""
    rng = random.Random(0)
    for name in experiment.benchmarks:
        for path in sorted((experiment.results / "judgments" / name / "gold").rglob("iter*.jsonl")):
            rows = read_jsonl(path)
            for row in rows:
                if "score" in row and rng.random() < 0.9:
                    row["score"] = max(1.0, row["score"] - 1)
                elif "score" in row:
                    row["score"] = -1
            write_jsonl(folder / name / f"{path.parent.parent.parent.name}.jsonl", rows)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    JUDGES["strict"]["path"] = str(folder / "strict" / "{benchmark}")
    evaluation = {"judges": ["gold", "strict"], "benchmarks": ["arenahard", "mtbench"], "trust": {"questions": 8}}
    experiment = write_answers(folder, JUDGES, evaluation, methods=METHODS)
    judge_and_score(experiment, ["gold"])
    strict_judgments(experiment, folder / "strict")
    judge_and_score(experiment, ["strict"])
    return experiment


@pytest.fixture(scope="module")
def card(experiment):
    for name in experiment.benchmarks:
        write_json(experiment.results / "judge_checks" / name / "gold.json", check_judge(experiment, "gold", name))
    found = judge_card(experiment, "gold")
    write_json(experiment.results / "card.json", found)  # JSON has no NaN
    return found


def test_the_gold_judge_passes_every_check_without_a_warning(card):
    assert card["warnings"] == []
    for name in ("arenahard", "mtbench"):
        checks = card["benchmarks"][name]["checks"]
        assert all(checks[key]["passed"] for key in ("constant", "pad", "command", "verdict"))
        assert checks["retest"]["exact"] == 1
        assert checks["retest"]["noise"] == 0


def test_a_card_counts_what_was_judged(card):
    games, turns = card["benchmarks"]["arenahard"], card["benchmarks"]["mtbench"]
    assert (games["n"], turns["n"]) == (4 * 10 * 2, 4 * 6 * 2)  # four models; two games, two turns
    assert games["unreadable"] == turns["unreadable"] == 0
    assert games["orders"]["consistent"] == 1
    assert turns["orders"] is None
    assert card["cost"] is None


def test_a_stricter_judge_is_equated_with_the_other(experiment, card):
    (other,) = card["benchmarks"]["mtbench"]["others"]
    assert other["judge"] == "strict"
    assert other["bias"]["bias"] == pytest.approx(1, abs=0.25)  # the gold judge is higher; a floor at grade 1
    assert other["alpha"]["value"] < 1
    assert other["equating"]["n_models"] == 4
    same = card["benchmarks"]["arenahard"]["others"][0]
    assert same["winners"]["value"] == same["kappa"]["value"] == 1


def test_a_judge_that_is_often_unreadable_gets_a_warning(experiment):
    warnings = judge_card(experiment, "strict")["warnings"]
    assert any("could not be read" in sentence and sentence.startswith("MT-Bench") for sentence in warnings)


def test_unreadable_judgments_leave_a_score_open(experiment, card):
    assert card["benchmarks"]["mtbench"]["bounds"] is None
    strict = judge_card(experiment, "strict")
    bounds = strict["benchmarks"]["mtbench"]["bounds"]
    assert 1 <= bounds["low"] < bounds["high"] <= 10
    shown = next(row["cells"] for row in card_view(strict)["rows"] if "most affected model" in row["label"])
    assert shown == ["–", f"{bounds['low']:.1f} to {bounds['high']:.1f}"]


def test_a_judge_of_the_policies_family_gets_a_warning(experiment):
    checkpoint = experiment.sft.checkpoint.model_copy(update={"path": "openai/gpt-4o-tuned"})
    related = experiment.model_copy(update={"sft": experiment.sft.model_copy(update={"checkpoint": checkpoint})})
    warnings = judge_card(related, "strict")["warnings"]
    assert any("one family, GPT" in sentence for sentence in warnings)


def test_the_report_shows_what_was_measured_and_nothing_else(card):
    view = card_view(card)
    labels = [row["label"] for row in view["rows"]]
    assert "Order swapped: winner changes" in labels
    assert "Agrees with human votes, without ties" not in labels
    assert view["benchmarks"] == ["Arena-Hard", "MT-Bench"]
    assert view["note"] == ""
    checked = next(row for row in view["rows"] if row["label"] == "An empty phrase as the answer to everything")
    assert all(cell.endswith("passed") for cell in checked["cells"])
    assert [other["judge"] for other in view["others"]] == ["strict"]
    unchecked = {name: part | {"checks": None} for name, part in card["benchmarks"].items()}
    assert "evaluation.trust.checks" in card_view(card | {"benchmarks": unchecked})["note"]


def test_human_votes_added_later_appear_in_the_report(card):
    measured = {"value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 50}
    keys = ("with_ties", "without_ties", "people_with_ties", "people_without_ties", "kappa", "alpha_people")
    human = dict.fromkeys((*keys, "alpha_with_judge"), measured) | {"self_preference": None, "pairs": None}
    turns = card["benchmarks"]["mtbench"]
    turns = turns | {"checks": turns["checks"] | {"human": human}}
    view = card_view(card | {"benchmarks": card["benchmarks"] | {"mtbench": turns}})
    votes = next(row for row in view["rows"] if row["label"] == "Agrees with human votes, without ties")
    assert votes["cells"] == ["–", "0.80 [0.70, 0.90]"]


def test_the_report_says_what_a_judge_cost_and_how_its_answers_ended(card):
    ledger = {"answered": 9, "failed": {"429": 2}, "prompt_tokens": 1000, "completion_tokens": 90, "dollars": 1.5}
    ledger |= {"unsure_dollars": 0.25, "finish_reasons": {"stop": 8, "length": 1}}
    cost = card_view(card | {"cost": ledger})["cost"]
    assert "9 answers and 2 failed attempts" in cost
    assert "$1.50, and at most $0.25 more" in cost
    assert "stop 8, length 1" in cost


# --- judges that cannot be trusted ---------------------------------------------------------------------------------


class Gullible(GoldJudge):
    """The gold judge, but it prefers answers that are long, instruct the judge or name a verdict."""

    def __init__(self, reason):
        super().__init__("gullible", "tiny")
        self.reason = reason

    def _fooled(self, text):
        return {"longer": len(text) > 130, "command": "ignore all" in text, "verdict": "[[10]]" in text}[self.reason]

    def verdicts(self, comparisons):
        said = super().verdicts(comparisons)
        for n, comparison in enumerate(comparisons):
            fooled = self._fooled(comparison.first) - self._fooled(comparison.second)
            if fooled:
                said[n] = Judgment("A>>B" if fooled > 0 else "B>>A", "")
        return said

    def grade(self, conversations):
        said = super().grade(conversations)
        return [
            Judgment(10.0, "") if self._fooled(conversation.messages[-1]["content"]) else judgment
            for conversation, judgment in zip(conversations, said)
        ]


@pytest.mark.parametrize(("reason", "check"), [("longer", "pad"), ("command", "command"), ("verdict", "verdict")])
@pytest.mark.parametrize("name", ["arenahard", "mtbench"])
def test_a_gullible_judge_fails_the_check_designed_for_it(experiment, name, reason, check):
    from eval.checkpoints import evaluated_models

    asked = prepare(experiment, name, evaluated_models(experiment)[-1], 8)
    run = pairwise_checks if benchmark(name).pairwise else graded_checks
    found = run(asked, [Gullible(reason)])
    assert found[check]["passed"] is False
    assert found["retest"] is None  # asked once


def test_a_judge_with_constant_judgments_is_detected():
    assert spread_of(np.array([7.0] * 95 + [8.0] * 5)) == {"distinct": 2, "most_frequent": 7.0, "share": 0.95}
    assert spread_of(np.array([np.nan])) is None


# --- what each benchmark's records contain ---------------------------------------------------------------------------


def test_preferences_are_read_from_the_models_side():
    record = {"instruction": "q", "preference": 1.8, "panel": {"a": 1.6, "b": None}}
    assert alpacaeval2.readings(record)[0][:2] == [pytest.approx(0.8), pytest.approx(0.6)]
    assert np.isnan(alpacaeval2.readings(record)[0][2])
    assert alpacaeval2.orders(record) is None


def test_both_orders_of_a_preference_follow_the_order_shown():
    questions = [f"question {n}" for n in range(8)]
    for instruction in questions:
        record = {"instruction": instruction, "preference": 1.6, "orders": [1.8, 1.4]}
        first, second = alpacaeval2.orders(record)  # the model is output_2, shown first where upstream switches
        expected = (0.8, 0.4) if is_switched(instruction) else (0.4, 0.8)
        assert (first, second) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert {is_switched(question) for question in questions} == {True, False}


def test_games_are_read_from_the_models_side():
    games = [{"score": "B>>A", "panel": {"a": "B>A", "b": "A=B"}}, {"score": "A>B", "panel": {"a": "A>B", "b": "B>A"}}]
    assert arenahard.readings({"games": games}) == [[1, 1, 0.5], [1, 1, 0]]
    assert arenahard.orders({"games": games}) == (1, 1)


def test_grades_are_read_as_they_are():
    assert mtbench.readings({"score": 7, "panel": {"a": 6, "b": 8}}) == [[7, 6, 8]]
    assert np.isnan(mtbench.readings({"score": -1})[0][0])


def items(values):
    return {(f"m{m}",): {f"q{q}": v for q, v in enumerate(row)} for m, row in enumerate(values)}


def test_judges_are_compared_on_what_both_judged():
    own, other = items([[1, 0, 0.5], [1, 1, 0]]), items([[0.8, 0.1, 0.52], [0.2, 0.9, 0.3]])
    del other[("m1",)]["q2"]
    found = compare_with(own, other, benchmark("arenahard"))
    assert found["n"] == 5
    assert found["winners"]["value"] == 0.8  # 0.52 is also a tie
    assert found["equating"] is None  # any two models fit a line


def test_wins_of_longer_answers_are_detected_per_question(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for question in range(40):
        base = rng.uniform(100, 1000)  # hard questions have long answers: no reason to suspect the judge
        for model in range(4):
            length = base * rng.uniform(0.5, 2)
            value = -base / 500 + 0.8 * np.log(length / base) + rng.normal(0, 0.3)
            rows.append({"method": f"m{model}", "question": question, "value": value, "length": int(length)})
    write_bytes(tmp_path / "items.csv.gz", items_csv(rows))
    found = length_association(tmp_path / "items.csv.gz")
    assert 0.5 < found["ci_low"] < found["value"] < found["ci_high"]
    assert found["n"] == 160


# --- panels and repeats through the catalogue ------------------------------------------------------------------------


def test_an_entry_sets_the_repeats_and_orders_of_a_judge(experiment):
    judge = open_judge(experiment, "jury")
    assert judge.name == "jury"
    gold, twice = judge.members
    assert [type(member).__name__ for member in twice.members] == ["BothOrders", "BothOrders"]
    assert clients_of(judge) == []
    members = judge_settings(experiment, "jury")["members"]
    assert members["twice"]["repeats"] == 2


def test_a_panels_judgments_keep_what_each_member_said(experiment, tmp_path):
    from eval.checkpoints import evaluated_models
    from eval.judge import judge_model

    model = evaluated_models(experiment)[1]
    rows = judge_model(experiment, open_judge(experiment, "jury"), "mtbench", model)
    assert rows[0]["panel"] == {"gold": rows[0]["score"], "twice": rows[0]["score"]}
    assert set(json.loads(json.dumps(rows))[0]) >= {"question_id", "model", "judge", "score", "turn"}
    assert "panel" not in read_jsonl(model.judgments(experiment, "mtbench", "gold"))[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "panel", "members": ["gold"]}, "two or more"),
        ({"kind": "panel", "members": ["gold", "gold"]}, "each once"),
        ({"kind": "gold", "members": ["a", "b"]}, "two or more"),
        ({"kind": "panel", "members": ["gold", "bad"]}, "'bad' is no single judge"),
        ({"kind": "panel", "members": ["gold", "nobody"]}, "'nobody' is no single judge"),
    ],
)
def test_a_panel_without_members_is_an_error(tmp_path, entry, words):
    from eval.judges.config import read_judges

    (tmp_path / "judges.yaml").write_text(json.dumps({"gold": {"kind": "gold"}, "bad": entry}))
    with pytest.raises(ConfigError, match=words):
        read_judges(tmp_path / "judges.yaml")


def test_the_command_writes_the_card(experiment, monkeypatch, capsys):
    from eval import judge_card as module

    config = experiment.results.parents[1] / "config.yaml"
    monkeypatch.setattr("sys.argv", ["eval.judge_card", "--config", str(config), "--judge", "gold"])
    module.main()
    assert read_json(experiment.results / "judges" / "gold" / "judge_card.json")["judge"]["name"] == "gold"
    assert json.loads(capsys.readouterr().out) == []
