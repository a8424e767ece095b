"""What the paper says: where each claim stands in it, and the numbers that the report sets beside its own.

arXiv 2509.23371 (Yang, Xu, Liu, Qiao & Geng, ICLR 2026). The numbers of figure 1 are read off the image in the authors'
repository and good to about 0.3; the paper gives no interval and one seed. Where it gives no number that this suite
keeps, the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Alignment through Meta-Weighted Online Sampling"
VERSION = "arXiv 2509.23371 (ICLR 2026)"
URL = "https://arxiv.org/abs/2509.23371"
CONDITIONS = "Llama-3.1-8B and Qwen2.5-7B, 61,135 pairs of UltraFeedback, judge GPT-4, one seed"

# Figure 1: AlpacaEval 2 win rate in percent after iterations 1 to 3, and their annotations in percent of Online
# DPO's. Keys are modules of the methods.
FIGURE_1 = {
    "metaapo": ((34.2, 41.5, 45.3), (59.7, 54.7, 59.5)),
    "online_dpo": ((28.5, 38.7, 41.8), (100.0, 100.0, 100.0)),
    "selm": ((29.5, 36.3, 41.8), (112.0, 112.0, 112.0)),
}


@dataclass(frozen=True)
class Said:
    """What the paper says on a claim.

    Attributes:
        where: the place in the paper.
        number: its number, with the unit.
        note: what the number leaves open; "" if nothing.
    """

    where: str
    number: str
    note: str = ""


SAID = {
    "C1": Said(
        "abstract; figure 1; the main table",
        "+3.5 points of AlpacaEval 2 win rate over Online DPO and over SELM (45.3 against 41.8 and 41.8)",
        "one seed and no interval: each win rate has a standard error of about 1.4 points from its 805 prompts alone",
    ),
    "C2": Said("abstract; figure 1", "58.0 % of Online DPO's annotations (59.7, 54.7 and 59.5 % by iteration)"),
    "C3": Said("ablation study", "each removal lowers the score", "this suite keeps no number from that study"),
    "C4": Said(
        "method; figure 1",
        "59.7 % in iteration 1, 59.5 % in iteration 3: a decline of 0.2 points",
        "the annotation ratio of figure 1 hardly declines",
    ),
    "C5": Said("method (the “alignment gap estimator”)", "no number", "the paper does not test the untrained map"),
    "C6": Said(
        "ablation study (random sampling)",
        "adaptive sampling scores higher",
        "this suite keeps no number from that study; a random control at the realised budget is this suite's addition",
    ),
}
