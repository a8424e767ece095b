"""The pooled benchmark: all questions of a small world, each turn in its own conversation, against the SFT policy."""

import math

import numpy as np
import pytest
from synthetic_results import write_results

from eval.answer import answer_questions
from eval.benchmark import Judged, benchmark
from eval.judges import Judgment
from eval.judges.both_orders import BothOrders
from eval.judges.gold import GoldJudge
from eval.judges.openai import _in_one_turn
from eval.pooled import judging, questions, samples, score
from eval.questions import Question, load_questions
from metaapo.config import ConfigError, EvaluationConfig
from metaapo.data import DataError
from metaapo.estimate import _turns
from metaapo.experiment import load, resolve
from metaapo.models.generate import Response
from metaapo.worlds.tiny.gold import TAU, gold, prefer

SETTINGS = EvaluationConfig(temperature=1.3)
ONE = Question("mixed-000", ("list two animals, baker.",), "list", {})
TWO = Question("two_turn-000", ("list two animals, baker.", "give me two more, baker."), "list", {})


def answered(question, *turns, model="m"):
    [record] = questions.answer_records([question], [turns], model, SETTINGS, in_world=True)
    return record


def judged(question, sft, model, judge=None):
    rows = [answered(question, *sft, model="sft")], [answered(question, *model)]
    [record] = judging.judge_answers(judge or GoldJudge("gold", "tiny"), [question], *rows)
    return record


# --- questions and answers -----------------------------------------------------------------------------------------


def test_it_asks_every_question_of_every_kind_once(tmp_path):
    experiment = load(write_results(tmp_path, questions=7, seeds=(0,), iterations=1, benchmarks=("alpacaeval2",)))
    asked = load_questions(experiment, "pooled", 0)
    assert len(asked.questions) == 3 * 7
    assert asked.in_world
    assert [question.id for question in asked.questions][::7] == ["mixed-000", "composed-000", "two_turn-000"]
    assert {len(question.turns) for question in asked.questions if question.id.startswith("two_turn")} == {2}


def test_a_change_of_any_kind_changes_the_checksum(tmp_path):
    experiment = load(write_results(tmp_path, questions=3, seeds=(0,), iterations=1, benchmarks=("alpacaeval2",)))
    before = load_questions(experiment, "pooled", 0).sha256
    path = experiment.world_path(0) / "data" / "eval" / "two_turn.jsonl"
    path.write_text(path.read_text().replace("give me two more", "give me one more"))
    assert load_questions(experiment, "pooled", 0).sha256 != before


def test_the_estimate_counts_the_turns_of_all_kinds():
    experiment = resolve({"experiment": "t", "seeds": [0], "methods": {"dpo": {}}})
    kinds = experiment.world.questions
    assert _turns(experiment, "pooled") == kinds.mixed + kinds.composed + 2 * kinds.two_turn


def test_its_temperature_is_its_own(monkeypatch):
    used = []

    def generate(model, tokenizer, conversations, **settings):
        used.append((set(settings["temperature"]), [len(messages) for messages in conversations]))
        return [[Response("cat.", [1], [-1.0], finished=True)] for _ in conversations]

    monkeypatch.setattr("metaapo.models.generate.generate", generate)
    responses = answer_questions(None, None, {"pooled": [ONE, TWO]}, SETTINGS, "model")
    assert used == [({0.7}, [1, 1]), ({0.7}, [3])]
    assert [len(turns) for turns in responses["pooled"]] == [1, 2]


REAL = {
    "experiment": "t",
    "seeds": [0],
    "methods": {"dpo": {}},
    "world": {"name": "ultrafeedback", "dataset": {"path": "d"}},
    "sft": {"checkpoint": {"path": "s"}},
    "reward_model": {"checkpoint": {"path": "r"}},
}


def test_outside_the_small_world_the_experiment_is_refused():
    evaluation = {"benchmarks": ["alpacaeval2", "pooled"], "judges": ["rm"]}
    with pytest.raises(ConfigError, match="pooled has no official questions and exists in the tiny world only"):
        resolve(REAL | {"evaluation": evaluation})
    assert resolve(REAL | {"evaluation": evaluation | {"benchmarks": ["alpacaeval2"]}})


@pytest.mark.parametrize("source", ["package", "hub"])
def test_there_is_no_official_set(tmp_path, source):
    experiment = load(write_results(tmp_path, questions=3, seeds=(0,), iterations=1, benchmarks=("alpacaeval2",)))
    experiment.evaluation.questions["pooled"] = source
    with pytest.raises(ConfigError, match="has no official questions; remove the key"):
        load_questions(experiment, "pooled", 0)
    with pytest.raises(ConfigError, match=r"evaluation.baselines.pooled.* has no official baselines"):
        questions.package_baseline(SETTINGS, [])


@pytest.mark.parametrize(
    ("row", "message"), [({"question": "a", "turns": []}, "category"), ({"turns": []}, "question"), ({}, "question")]
)
def test_a_bad_question_file_is_explained(row, message):
    with pytest.raises(DataError, match=message):
        questions.read(row, "file, record 1")
    with pytest.raises(DataError, match="no turn"):
        questions.read({"question": "a", "category": "b", "turns": []}, "file, record 1")


# --- judging -------------------------------------------------------------------------------------------------------


def test_each_turn_is_judged_within_its_own_conversation():
    """'more' means other animals than the policy's own first answer named, not the baseline's."""
    sft, model = ("cat and dog.", "cat and dog."), ("cat and dog.", "hen and pig.")
    record = judged(TWO, sft, model)
    first, second = (turn["preference"] - 1 for turn in record["turns"])
    assert first == 0.5
    conversation = [{"role": "user", "content": TWO.turns[0]}, {"role": "assistant", "content": "cat and dog."}]
    conversation.append({"role": "user", "content": TWO.turns[1]})
    rewards = [gold(conversation, answers[1]).reward for answers in (model, sft)]
    assert second == pytest.approx(prefer(*rewards, TAU))
    assert second > 0.6

    repeats = judged(TWO, ("hen and pig.", "cat and dog."), ("cat and dog.", "cat and dog."))
    assert repeats["turns"][1]["preference"] < 1.4  # the same second answer, but the model has said it before


def test_identical_conversations_are_a_draw_that_no_judge_is_asked_about():
    class Silent:
        name = "silent"

        def prefer(self, comparisons):
            assert not comparisons
            return []

    record = judged(TWO, ("cat.", "dog."), ("cat.", "dog."), Silent())
    assert [turn["preference"] for turn in record["turns"]] == [1.5, 1.5]


class FirstWins:
    """Prefers the answer shown as the first, with 0.8."""

    name = "biased"

    def prefer(self, comparisons):
        return [Judgment(1.2, "the first") for _ in comparisons]


def test_asking_in_both_orders_cancels_a_preference_for_the_first_and_shows_it():
    record = judged(TWO, ("cat.", "dog."), ("dog.", "cat."), BothOrders(FirstWins()))
    assert [turn["preference"] for turn in record["turns"]] == [1.5, 1.5]
    first, second = judging.orders(record)
    assert sorted((first, second)) == pytest.approx([0.2, 0.8])
    assert judging.orders(judged(ONE, ("cat.",), ("dog.",), FirstWins())) is None


def test_a_swapped_comparison_swaps_the_conversations_too():
    comparison = judging._comparisons(TWO, answered(TWO, "cat.", "dog.", model="sft"), answered(TWO, "hen.", "pig."))[1]
    swapped = comparison.swapped()
    assert (swapped.first, swapped.second, swapped.models) == ("pig.", "dog.", ("m", "sft"))
    assert swapped.prompts == comparison.prompts[::-1]
    assert swapped.swapped() == comparison


def test_a_language_model_sees_earlier_turns_before_the_last():
    comparison = judging._comparisons(TWO, answered(TWO, "cat.", "dog.", model="sft"), answered(TWO, "hen.", "pig."))[1]
    texts = _in_one_turn(comparison)
    assert texts == ("list two animals, baker.\n\ngive me two more, baker.", "cat.\n\ndog.", "hen.\n\npig.")


def test_an_unreadable_turn_is_counted_and_its_question_has_no_value():
    record = judged(TWO, ("cat.", "dog."), ("dog.", "cat."))
    record["turns"][1]["preference"] = None
    assert judging.unreadable([record]) == 1
    assert math.isnan(judging.readings(record)[1][0])
    assert score.value_of(record) is None
    assert samples.rows([answered(TWO, "dog.", "cat.")], [record])[0][3] is None


# --- scoring -------------------------------------------------------------------------------------------------------


def scored(records, answers=()):
    found = Judged({"m": records}, [], lambda: list(answers), list, sft_baseline=True)
    return score.score_models(found, SETTINGS, seed=0)


def record(id, *preferences):
    turns = [{"preference": preference} for preference in preferences]
    return {"question": id, "category": "list", "baseline": "sft", "model": "m", "turns": turns}


def test_a_questions_value_is_the_mean_of_its_turns_and_all_questions_weigh_the_same():
    scores = scored([record("mixed-000", 2.0), record("two_turn-000", 1.0, 1.5), record("two_turn-001", None, 2.0)])
    assert [item["value"] for item in scores.items] == [1.0, 0.25, None]
    row = scores.rows["m"]
    assert row["metrics"]["win_rate"]["value"] == pytest.approx(62.5)
    assert row["metrics"]["kind:two_turn"]["value"] == 25.0
    assert (row["n"], row["n_failed"]) == (2, 1)


def test_its_standard_error_is_that_of_the_mean_over_questions():
    preferences = 1 + np.random.default_rng(0).random(400)
    row = scored([record(f"mixed-{i:03d}", p) for i, p in enumerate(preferences)]).rows["m"]["metrics"]["win_rate"]
    expected = 100 * preferences.std(ddof=1) / 20
    assert row["stderr"] == pytest.approx(expected, rel=0.1)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(3.92 * expected, rel=0.1)


def test_lengths_are_characters_per_turn_and_absent_without_answers():
    rows = [record("two_turn-000", 1.0, 1.5), record("mixed-000", 1.0)]
    with_answers = scored(rows, [answered(TWO, "cat.", "hen and pig."), answered(ONE, "dog.")])
    assert with_answers.rows["m"]["mean_length"] == pytest.approx((8 + 4) / 2)
    assert scored(rows).rows["m"]["mean_length"] is None


def test_a_question_judged_twice_is_refused():
    with pytest.raises(DataError, match="both are about 'mixed-000'"):
        scored([record("mixed-000", 1.0), record("mixed-000", 1.0)])


def test_the_browser_shows_a_verdict_per_turn():
    answers = [answered(TWO, "cat.", "dog.")]
    assert samples.rows(answers, [])[0][2:] == (["baseline", "baseline"], None)
    [(id, texts, verdicts, value)] = samples.rows(answers, [record("two_turn-000", 1.25, 1.75)])
    assert (id, texts, value) == ("two_turn-000", ["cat.", "dog."], 0.5)
    assert verdicts[1] == "preferred to the SFT policy's answer with probability 0.75"


def test_it_is_the_primary_endpoint_with_a_margin_of_one_point():
    declared = benchmark("pooled")
    assert (declared.primary, declared.margin, declared.raw_metric, declared.scale) == (True, 1.0, "win_rate", (0, 100))
