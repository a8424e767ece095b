"""Judges that need no endpoint: gold, rewards, stored judgments; the catalogue; checks of judges; rank agreement."""

import datetime
import json
from dataclasses import replace

import numpy as np
import pytest

from eval.agreement import order_effects
from eval.alpacaeval2.preferences import is_switched
from eval.arenahard import verdicts
from eval.judge_checks import ask_both_orders, at_most
from eval.judges import Comparison, Conversation, Judgment
from eval.judges.config import find_judge, read_judges
from eval.judges.gold import GoldJudge
from eval.judges.replay import ReplayJudge
from eval.judges.rewards import Scale, grade, preference, probability_first, verdict
from eval.mtbench import ratings
from eval.rank_agreement import compare_judges
from eval.tampering import CONSTANT
from metaapo.config import ConfigError
from metaapo.data import DataError, write_json, write_jsonl
from metaapo.worlds.tiny.data import evaluation_sets
from metaapo.worlds.tiny.tasks import parse
from metaapo.worlds.tiny.writers import model_answer

SCALE = Scale(tau=0.5, low=-1, high=3)


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def questions():
    from metaapo.config import QuestionsConfig, WorldConfig

    return evaluation_sets(WorldConfig(questions=QuestionsConfig(mixed=16, composed=8, two_turn=8)))


@pytest.fixture
def comparisons(questions):
    prompts = [user(row["turns"][0]) for row in questions["mixed"]]
    good = [model_answer(parse(prompt)) for prompt in prompts]
    return [
        Comparison(prompt, "um, cat.", answer, f"q{i}", "", ("bad", "good"), "alpacaeval2")
        for i, (prompt, answer) in enumerate(zip(prompts, good))
    ]


def test_judgments_follow_the_reward_and_flip_with_the_order():
    assert preference(0, 0, SCALE) == 1.5
    assert preference(0, 1, SCALE) == pytest.approx(1 + 1 / (1 + np.exp(-2)))
    assert preference(-1e6, 1e6, SCALE) == 2
    for first, second in [(0.0, 0.1), (0.3, 2.9), (1.0, 0.0)]:
        assert probability_first(first, second, SCALE) == pytest.approx(1 - probability_first(second, first, SCALE))
        turned = verdict(second, first, SCALE).translate(str.maketrans("AB", "BA"))
        assert verdict(first, second, SCALE) in (turned, "A=B")


def test_all_five_verdicts_and_all_grades_occur_and_are_read_back():
    said = [verdict(0, gap, SCALE) for gap in (-2, -0.5, 0.1, 0.5, 2)]
    assert said == ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    assert [verdicts.parse_verdict(f"My final verdict is [[{v}]]", "v0.1-2024") for v in said] == said
    assert [grade(reward, SCALE) for reward in (-5, -1, 1, 3, 9)] == [1, 1, 5.5, 10, 10]


def test_the_gold_judge_prefers_right_answers_and_says_why(comparisons):
    judge = GoldJudge("gold", "tiny")
    assert all(judgment.value > 1.9 for judgment in judge.prefer(comparisons))
    assert {judgment.value for judgment in judge.verdicts(comparisons)} == {"B>>A"}
    for judgment in judge.verdicts(comparisons):
        assert verdicts.parse_verdict(judgment.text, "v0.1-2024") == judgment.value
        assert "correctness" in judgment.text
    talk = [
        Conversation([*comparison.prompt, {"role": "assistant", "content": comparison.second}])
        for comparison in comparisons
    ]
    for judgment in judge.grade(talk):
        assert judgment.value > 8
        assert ratings.parse_rating(judgment.text) == judgment.value


def test_the_gold_judge_has_no_position_bias_and_lets_a_constant_answer_lose(comparisons):
    judge = GoldJudge("gold", "tiny")
    orders = order_effects(*ask_both_orders(judge, "arenahard", comparisons))
    assert (orders["n"], orders["consistent"], orders["first_slot_advantage"]) == (16, 1.0, 0.0)
    constant = [Comparison(comparison.prompt, CONSTANT, comparison.second) for comparison in comparisons]
    found = at_most(100 * np.mean(ask_both_orders(judge, "alpacaeval2", constant), axis=0), 50)
    assert found["passed"]
    assert found["value"] < 10


class FirstLover:
    """A judge that prefers the first answer it sees, in alpaca_eval's order or in the games' order."""

    name = "first"

    def prefer(self, comparisons):
        return [
            Judgment(1.8 if is_switched(comparison.prompt[-1]["content"]) else 1.2, "") for comparison in comparisons
        ]

    def verdicts(self, comparisons):
        return [Judgment("A>B", "") for _ in comparisons]


@pytest.mark.parametrize("benchmark", ["alpacaeval2", "arenahard"])
def test_a_biased_judge_is_detected(comparisons, benchmark):
    shares = ask_both_orders(FirstLover(), benchmark, comparisons)
    orders = order_effects(*shares)
    assert orders["reversed"] == 1.0
    assert orders["first_slot_advantage"] == pytest.approx(0.3 if benchmark == "alpacaeval2" else 0.5)
    assert not at_most(100 * np.mean(shares, axis=0), 50)["passed"]


def test_unreadable_judgments_decide_no_check():
    nan = float("nan")
    assert order_effects([nan, 1.0], [0.0, nan])["n"] == 0
    assert at_most(np.array([nan, 1.0]), 50) == {
        "value": None, "ci_low": None, "ci_high": None, "n": 1, "bound": 50, "passed": None
    }  # fmt: skip


def test_the_catalogue_explains_errors_and_lists_available_judges(tmp_path):
    judges = read_judges("config/judges.yaml")
    assert judges["gold"].kind == "gold"
    with pytest.raises(ConfigError, match="end of life on 2026-10-23.*live judge.*gold.*llama-3.3-70b"):
        find_judge("config/judges.yaml", "gpt-4-1106-preview", datetime.date(2026, 10, 23))
    assert find_judge("config/judges.yaml", "gpt-4-1106-preview", datetime.date(2026, 10, 22)).model
    with pytest.raises(ConfigError, match="not in config/judges.yaml; live judges there: gold"):
        find_judge("config/judges.yaml", "oracle")
    for text, message in [
        ("j: {kind: openai}", "needs the model's name"),
        ("j: {kind: gold, colour: red}", "colour.*known keys: kind"),
        ("j: {kind: prophet}", "j.kind"),
        ("[]", "expected a mapping"),
        ("j: {kind: replay}", "needs the path"),
    ]:
        (tmp_path / "judges.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_judges(tmp_path / "judges.yaml")
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        read_judges("nowhere.yaml")


def test_every_date_and_price_of_the_catalogue_says_where_it_is_from_and_when_that_was_checked():
    assert {
        name: entry.unsourced() for name, entry in read_judges("config/judges.yaml").items() if entry.unsourced()
    } == {}
    entry = read_judges("config/judges.yaml")["gpt-4.1"]
    for fact in ("date", "end_of_life", "price"):
        without = {key: value for key, value in entry.sources.items() if key != fact}
        assert entry.model_copy(update={"sources": without}).unsourced() == [fact]
        assert entry.model_copy(update={"sources": entry.sources | {fact: " "}}).unsourced() == [fact]
    assert entry.model_copy(update={"checked": None}).unsourced() == ["date", "end_of_life", "price"]


def test_no_entry_of_the_catalogue_contains_a_key():
    assert all("sk-" not in entry.model_dump_json() for entry in read_judges("config/judges.yaml").values())


def test_stored_annotations_are_replayed_for_the_very_same_answers(tmp_path, comparisons):
    rows = [
        {"instruction": p.prompt[0]["content"], "output_1": p.first, "output_2": p.second, "generator_1": "bad"}
        | {"generator_2": "good", "annotator": "gpt", "preference": 1.5 if i else None}
        for i, p in enumerate(comparisons[:-1])
    ]
    write_json(tmp_path / "alpacaeval2" / "annotations.json", rows)
    judge = ReplayJudge("old", str(tmp_path / "{benchmark}"))
    assert [judgment.value for judgment in judge.prefer(comparisons)] == [None, *[1.5] * 14, None]
    other = [Comparison(p.prompt, p.first, "other", p.question, "", p.models, p.benchmark) for p in comparisons]
    with pytest.raises(DataError, match="judged different answers of good"):
        judge.prefer(other)
    with pytest.raises(DataError, match="no judgment of these models"):
        judge.prefer([replace(p, models=("x", "y")) for p in comparisons])


def test_stored_games_and_grades_are_replayed(tmp_path):
    game = {"uid": "q0", "model": "good", "baseline": "bad", "judge": "gpt", "category": "hard_prompt"}
    game["games"] = [{"score": "B>A", "judgment": "one"}, {"score": "A>>B", "judgment": "two"}]
    write_jsonl(tmp_path / "arenahard" / "good.jsonl.gz", [game])
    row = {"question_id": 81, "model": "good", "judge": ["gpt-4", "single-v1"]}
    grades = [row | {"judgment": "[[7]]", "score": 7, "turn": 1}, row | {"judgment": "", "score": -1, "turn": 2}]
    write_jsonl(tmp_path / "mtbench" / "gpt-4_single.jsonl", grades)
    judge = ReplayJudge("old", str(tmp_path / "{benchmark}"))
    ask = [
        Comparison(user("?"), "b", "g", "q0", "", ("bad", "good"), "arenahard"),
        Comparison(user("?"), "g", "b", "q0", "", ("good", "bad"), "arenahard"),
    ]
    assert [judgment.value for judgment in judge.verdicts(ask)] == ["B>A", "A>>B"]
    messages = [*user("?"), {"role": "assistant", "content": "!"}] * 2
    talk = [Conversation(turns, "", (), "81", "good", "mtbench") for turns in (messages[:2], messages)]
    judgments = judge.grade(talk)
    assert [judgment.value for judgment in judgments] == [7, None]
    assert judgments[0].details == {"template": "single-v1"}


def test_a_judge_that_ranks_the_other_way_round_has_tau_minus_one():
    rng = np.random.default_rng(0)
    one = {(f"m{m}",): {f"q{q}": m + 0.1 * rng.random() for q in range(30)} for m in range(5)}
    two = {model: {question: -value for question, value in table.items()} for model, table in one.items()}
    assert compare_judges(one, one)["tau"] == 1
    found = compare_judges(one, two | {("other",): {}})
    assert (found["tau"], found["n_models"], found["n_questions"]) == (-1, 5, 30)
    assert compare_judges(one, {("m0",): one[("m0",)]})["tau"] is None
    tied = {model: dict.fromkeys(values, 0.0) for model, values in one.items()}
    assert (compare_judges(one, tied)["tau"], compare_judges(one, tied)["ci_low"]) == (None, None)
    json.dumps(found, allow_nan=False)
