"""What an online pair adds to the offline pair of its prompt, by the gold reward of the tiny world.

The oracle (baselines/oracle.py) selects by it, and the aim of selection (eval/aim.py) is measured against it.
"""

from __future__ import annotations

import math
from typing import Literal

from metaapo.method import AnnotatedPrompt
from metaapo.worlds.tiny.gold import gold


def gold_gain(prompt: AnnotatedPrompt, gain: Literal["margin", "chosen"] = "margin") -> float:
    """The gain of a prompt, in units of gold reward; -inf without an online pair.

    Args:
        prompt: with its offline and online pairs.
        gain: margin: gold margin (chosen less rejected) of the online pair less that of the offline pair; chosen: gold
            reward of the online chosen response less that of the offline one.

    Raises:
        PromptError: the prompt is not one of this world.
    """
    if prompt.online is None:
        return -math.inf
    chosen, rejected = (gold(prompt.messages, text).reward for text in prompt.online)
    offline_chosen, offline_rejected = (gold(prompt.messages, text).reward for text in prompt.offline)
    if gain == "chosen":
        return chosen - offline_chosen
    return (chosen - rejected) - (offline_chosen - offline_rejected)
