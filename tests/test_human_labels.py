"""Human votes of MT-Bench: reading them, deciding by a judge's grades, and agreement as FastChat counts it."""

import json

import numpy as np
import pytest
from fastchat.llm_judge.compute_agreement import get_mt_bench_agreement, get_mt_bench_votes_data

from eval.judges import Judgment
from eval.judges.client import Answer
from eval.judges.config import JudgeConfig
from eval.mtbench.human_labels import agreement, decide, pairwise_agreement, read_votes, self_preference
from eval.mtbench.pairwise import Pair, ask_pairs, decided, read_winner
from metaapo.data import DataError, write_json, write_jsonl

MODELS = ("alpaca-13b", "claude-v1", "gpt-4", "llama-13b")


def talk(question, model, turns=2):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": f"{question} {model} {i // 2 + 1}"} for i in range(2 * turns)]


def vote(question=81, a="gpt-4", b="alpaca-13b", winner="model_a", judge="expert_1", turn=1):
    ends = {"conversation_a": talk(question, a), "conversation_b": talk(question, b)}
    return {"question_id": question, "model_a": a, "model_b": b, "winner": winner, "judge": judge, "turn": turn} | ends


def random_votes(n=400, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        a, b = rng.choice(MODELS, 2, replace=False)
        winner = rng.choice(["model_a", "model_b", "tie", "tie (inconsistent)"])
        rater, turn = f"expert_{rng.integers(5)}", int(rng.integers(1, 3))
        rows.append(vote(int(rng.integers(81, 91)), str(a), str(b), str(winner), rater, turn))
    return rows


def read(tmp_path, rows):
    write_json(tmp_path / "human.json", rows)
    return read_votes(tmp_path / "human.json")


class ByName:
    """Grades from a table of models; -1 is unreadable."""

    name = "by-name"

    def __init__(self, grades):
        self.grades, self.asked = grades, []

    def grade(self, conversations):
        self.asked += conversations
        said = [self.grades[c.model] for c in conversations]
        return [Judgment(None if grade < 0 else grade, "") for grade in said]


def test_agreement_equals_fastchats(tmp_path):
    rows = random_votes()
    votes = read(tmp_path, rows)
    rng = np.random.default_rng(1)
    decisions = {vote.item: float(rng.choice([0.0, 0.5, 1.0])) for vote in votes}
    names = {1.0: "model_a", 0.0: "model_b", 0.5: "tie"}
    judge_rows = [
        {"question_id": int(q), "turn": turn, "model_a": a, "model_b": b, "winner": names[share]}
        | {"judge": ["gpt-4", "pair-v2"]}
        for (q, turn, a, b), share in decisions.items()
    ]
    data = get_mt_bench_votes_data([rows, judge_rows])
    for turn in (1, 2):
        found = agreement([v for v in votes if v.turn == turn], decisions)
        for key, judge, ban in [
            ("with_ties", "gpt4-pair", []),
            ("without_ties", "gpt4-pair", ["tie"]),
            ("people_with_ties", "human", []),
            ("people_without_ties", "human", ["tie"]),
        ]:
            equal, total = get_mt_bench_agreement(data[turn - 1], judge, "human", ban)
            assert found[key]["value"] == pytest.approx(equal / total)
            assert found[key]["n"] == total
            assert found[key]["ci_low"] < equal / total < found[key]["ci_high"]


def test_a_judge_at_chance_has_no_kappa_and_lowers_alpha(tmp_path):
    rows = [vote(q, winner="model_a" if q % 3 else "model_b", judge=f"expert_{e}") for q in range(60) for e in (1, 2)]
    votes = read(tmp_path, rows)
    rng = np.random.default_rng(2)
    found = agreement(votes, {v.item: float(rng.choice([0.0, 1.0])) for v in votes})
    assert found["alpha_people"]["value"] == 1
    assert found["kappa"]["ci_low"] < 0 < found["kappa"]["ci_high"]
    errors = found["corrected"]
    assert errors is None or errors["ci_high"] - errors["ci_low"] > 0.5  # at chance, 60 % may mean anything
    assert found["alpha_with_judge"]["value"] < 0.6


def test_a_judge_that_decides_as_people_do_agrees_with_them(tmp_path):
    votes = read(tmp_path, [vote(q, winner="model_a" if q % 3 else "tie") for q in range(30)])
    found = agreement(votes, {v.item: v.share for v in votes})
    assert found["with_ties"]["value"] == found["kappa"]["value"] == 1
    assert found["without_ties"]["n"] == 20
    assert found["corrected"] is None  # no vote for the second model, so the judge's value for it is unknown
    assert found["people_with_ties"] == {"value": None, "ci_low": None, "ci_high": None, "n": 0}


def test_each_answer_is_graded_once_and_the_better_grade_wins(tmp_path):
    rows = [
        vote(81),
        vote(81, judge="expert_2"),
        vote(81, "gpt-4", "claude-v1", turn=2),
        vote(82, "llama-13b", "gpt-4"),
    ]
    votes = read(tmp_path, rows)
    judge = ByName({"gpt-4": 9, "alpaca-13b": 4, "claude-v1": 9.05, "llama-13b": -1})
    decisions = decide(judge, votes, {"81": "writing"}, {})
    assert decisions["81", 1, "alpaca-13b", "gpt-4"] == 0
    assert decisions["81", 2, "claude-v1", "gpt-4"] == 0.5  # within 0.1 is a tie, as in FastChat
    assert np.isnan(decisions["82", 1, "gpt-4", "llama-13b"])
    assert len(judge.asked) == 6
    lengths = {(c.question, c.model, len(c.messages)) for c in judge.asked}
    assert {("81", "gpt-4", 2), ("81", "gpt-4", 4)} <= lengths
    assert agreement(votes, decisions)["unreadable"] == 1


def test_votes_of_the_benchmarks_authors_do_not_count_as_human(tmp_path):
    votes = read(tmp_path, [vote(), vote(judge="author_1"), vote(82)])
    assert [vote.rater for vote in votes] == ["expert_1", "expert_1"]


def test_swapping_two_models_changes_nothing(tmp_path):
    straight = read(tmp_path, [vote(81, "gpt-4", "alpaca-13b", "model_a")])
    mirrored = read(tmp_path, [vote(81, "alpaca-13b", "gpt-4", "model_b")])
    assert straight == mirrored


def test_a_judge_that_favours_its_family_more_than_people_do_is_detected(tmp_path):
    rows = [vote(q, "gpt-4", "claude-v1", "tie") for q in range(81, 121)]
    rows += [vote(q, "llama-13b", "claude-v1", "model_a") for q in range(81, 121)]
    votes = read(tmp_path, rows)
    decisions = decide(ByName({"gpt-4": 9, "claude-v1": 5, "llama-13b": 5}), votes, {}, {})
    found = self_preference(votes, decisions, "gpt-4-0613")
    assert (found["value"], found["ci_low"], found["n"]) == (0.5, 0.5, 40)
    assert found["families"] == ["GPT"]
    assert self_preference(votes, decisions, "Claude-3")["value"] == pytest.approx(0.0)  # -0.5 here, +0.5 there
    assert self_preference(votes, decisions, "Qwen2.5-72B") is None


def test_the_hubs_parquet_folder_is_read_like_the_json(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = random_votes(20)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "human-00000-of-00001.parquet")
    write_jsonl(tmp_path / "gpt4_pair.jsonl", rows)
    assert read_votes(tmp_path) == read(tmp_path, rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"winner": "both"}, "expected model_a, model_b or tie"),
        ({"turn": 3}, "turn 1 or 2"),
        ({"conversation_a": talk(81, "x", 1), "turn": 2}, "shorter than turn 2"),
    ],
)
def test_a_record_that_is_not_a_vote_is_an_error(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, [vote() | change])


def test_a_folder_without_votes_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="prefetch"):
        read_votes(tmp_path)
    (tmp_path / "human.json").write_text(json.dumps([{"winner": "tie"}]))
    with pytest.raises(DataError, match="'question_id' is missing"):
        read_votes(tmp_path / "human.json")


# --- pairs ---------------------------------------------------------------------------------------------------------

PROMPTS = {
    "pair-v2": "{question}|{answer_a}|{answer_b}",
    "pair-v2-multi-turn": "{question_1}|{question_2}|{answer_a_1}|{answer_a_2}|{answer_b_1}|{answer_b_2}",
    "pair-math-v1": "{question}|{ref_answer_1}|{answer_a}|{answer_b}",
    "pair-math-v1-multi-turn": "{ref_answer_1}|{ref_answer_2}|{answer_a_2}|{answer_b_2}",
    **dict.fromkeys(("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"), "-"),
}


class Asked:
    """Answers pairwise prompts with a function of the prompt."""

    name = "asked"

    def __init__(self, folder, say):
        rows = [{"name": n, "system_prompt": "judge", "prompt_template": text} for n, text in PROMPTS.items()]
        write_jsonl(folder / "prompts.jsonl", rows)
        self.config = JudgeConfig(kind="openai", model="m", prompts={"mtbench": str(folder / "prompts.jsonl")})
        self.say, self.prompts = say, []

    def ask_about(self, conversations, settings, readable):
        self.prompts += [messages[-1]["content"] for messages in conversations]
        said = [self.say(messages[-1]["content"]) for messages in conversations]
        return [Answer({"message": {"content": text}}) for text in said]


def pair(category="writing", turns=1, references=()):
    return Pair("81", category, talk(81, "x", turns), talk(81, "y", turns), references)


def test_pairs_are_judged_in_both_orders_with_the_right_prompt(tmp_path):
    judge = Asked(tmp_path, lambda prompt: "[[C]]")
    ask_pairs(judge, [pair(), pair(turns=2), pair("math", 1, ("4",)), pair("math", 2, ("4", "5"))])
    assert judge.prompts == [
        "81 x 1|81 x 1|81 y 1",
        "81 x 1|81 x 2|81 x 1|81 x 2|81 y 1|81 y 2",
        "81 x 1|4|81 x 1|81 y 1",
        "4|5|81 x 2|81 y 2",
        "81 y 1|81 y 1|81 x 1",
        "81 y 1|81 y 2|81 y 1|81 y 2|81 x 1|81 x 2",
        "81 y 1|4|81 y 1|81 x 1",
        "4|5|81 y 2|81 x 2",
    ]


def test_a_math_question_without_a_reference_is_an_error(tmp_path):
    with pytest.raises(DataError, match="mtbench_references"):
        ask_pairs(Asked(tmp_path, lambda prompt: ""), [pair("math")])


def test_a_winner_is_one_that_both_orders_name():
    straight = np.array([1.0, 1.0, 0.0, 0.5, np.nan])
    swapped = np.array([1.0, 0.0, 0.5, 0.5, 1.0])
    assert decided(straight, swapped).tolist()[:4] == [1.0, 0.5, 0.5, 0.5]
    assert np.isnan(decided(straight, swapped)[4])


@pytest.mark.parametrize(("text", "share"), [("so [[A]]", 1), ("[[B]]", 0), ("[[C]]", 0.5), ("[[B]] not [[A]]", 1)])
def test_a_winner_is_read_as_fastchat_reads_it(text, share):
    assert read_winner(text) == share


def test_a_judge_that_always_prefers_the_first_answer_agrees_with_no_one(tmp_path):
    votes = read(tmp_path, [vote(q, winner="model_a") for q in range(81, 91)])
    found = pairwise_agreement(Asked(tmp_path, lambda prompt: "[[A]]"), votes, {}, {})
    assert found["orders"]["reversed"] == 1
    assert found["orders"]["first_slot_advantage"] == 0.5
    assert found["with_ties"]["value"] == 0
    assert found["without_ties"]["n"] == 0
