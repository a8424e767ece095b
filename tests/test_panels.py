"""Model families are known by name, panels pool their members, and both orders cancel position bias."""

import pytest

from eval.families import families_of, family_warnings
from eval.judges import Comparison, Judgment
from eval.judges.both_orders import BothOrders
from eval.judges.panel import LEVELS, PanelJudge, median_verdict


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("Qwen/Qwen2.5-72B-Instruct", {"Qwen"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"DeepSeek", "Qwen"}),
        ("meta-llama/Llama-3.3-70B-Instruct", {"Llama"}),
        ("lmsys/vicuna-13b-v1.3", {"Llama"}),
        ("alpaca-13b", {"Llama"}),
        ("gpt4_1106_preview", {"GPT"}),
        ("o3-mini-2025-01-31", {"GPT"}),
        ("claude-v1", {"Claude"}),
        ("google/gemma-2-9b-it", {"Gemini"}),
        ("HuggingFaceH4/zephyr-7b-beta", {"Mistral"}),
        ("microsoft/phi-4", {"Phi"}),
        ("SmolLM2-135M-Instruct", {"SmolLM"}),
        ("THUDM/chatglm-6b", {"GLM"}),
        ("01-ai/Yi-34B", {"Yi"}),
        ("dolphin-v2", set()),
        ("tiny", set()),
        ("foo3-mini", set()),
    ],
)
def test_a_models_family_is_in_its_name(name, families):
    assert families_of(name) == families


def test_a_judge_of_the_same_family_gets_a_warning_and_others_do_not():
    models = {"the policies": "Qwen/Qwen2.5-7B", "the baseline": "gpt-4-0314"}
    (warning,) = family_warnings("qwen2.5-72b", "Qwen/Qwen2.5-72B-Instruct", models)
    assert "Qwen/Qwen2.5-7B" in warning
    assert "one family, Qwen" in warning
    assert not family_warnings("llama", "meta-llama/Llama-3.3-70B-Instruct", models)


class Saying:
    """A judge with constant judgments."""

    def __init__(self, name, value):
        self.name, self.value, self.asked = name, value, []

    def _say(self, asked):
        self.asked += asked
        return [Judgment(self.value, f"says {self.value}", "prompt") for _ in asked]

    prefer = verdicts = grade = _say


ONE = [Comparison([{"role": "user", "content": "q"}], "first", "second", models=("a", "b"))]


def test_a_panel_takes_the_mean_of_preferences_and_keeps_each():
    panel = PanelJudge("jury", [Saying("x", 1.2), Saying("y", 1.6), Saying("z", None)], "xyz")
    (judgment,) = panel.prefer(ONE)
    assert judgment.value == pytest.approx(1.4)
    assert judgment.details == {"panel": {"x": 1.2, "y": 1.6, "z": None}}
    assert judgment.text == "x: says 1.2\n\ny: says 1.6\n\nz: says None"


def test_a_mostly_unreadable_panel_gives_no_judgment():
    panel = PanelJudge("jury", [Saying("x", 7), Saying("y", None), Saying("z", None)], "xyz")
    assert panel.grade(["conversation"])[0].value is None


def mirrored(verdict):
    return LEVELS[len(LEVELS) - 1 - LEVELS.index(verdict)]


@pytest.mark.parametrize(
    ("values", "median"),
    [
        (["A>>B", "A>B", "B>A"], "A>B"),
        (["A>B", "B>A"], "A=B"),
        (["A>>B", "A>B"], "A>B"),
        (["B>>A", "B>A"], "B>A"),
        (["A=B", "B>A"], "A=B"),
        (["A>>B"], "A>>B"),
    ],
)
def test_a_panels_verdict_is_the_median_closer_to_a_tie(values, median):
    assert median_verdict(values) == median
    assert median_verdict([mirrored(v) for v in values]) == mirrored(median)


class FirstLover(Saying):
    """Always prefers the answer shown first."""

    def __init__(self):
        super().__init__("x", 1.3)


def test_both_orders_cancel_position_bias():
    inner = FirstLover()
    (judgment,) = BothOrders(inner).prefer(ONE)
    assert judgment.value == 1.5
    assert judgment.details["orders"] == [1.3, pytest.approx(1.7)]
    straight, other = inner.asked
    assert (straight.first, straight.second, straight.models) == (other.second, other.first, other.models[::-1])


def test_half_a_comparison_counts_as_none():
    class Once(Saying):
        def prefer(self, asked):
            return [Judgment(value, "") for value in (1.3, None)]

    (judgment,) = BothOrders(Once("x", 1.3)).prefer(ONE)
    assert judgment.value is None
    assert judgment.details["orders"] == [1.3, None]


def test_records_with_both_orders_or_none_are_judged_once():
    inner = Saying("x", "A>B")
    assert BothOrders(inner).verdicts(ONE)[0].value == "A>B"
    assert BothOrders(inner).grade(["conversation"])[0].value == "A>B"
    assert len(inner.asked) == 2
