"""ADPO (Ji et al. 2024, arXiv 2402.09401) in the hybrid setting: annotate only where the policy is uncertain.

Active queries: a prompt is annotated (K responses are sampled and ranked) if the policy's margin between the responses
of its offline pair is small, |beta * Delta| <= threshold. Offline and online losses are mixed with fixed weights; a
prompt that is not annotated contributes only its offline loss. Nothing is learned here, which makes ADPO the hard,
static counterpart of MetaAPO. (The paper labels confident pairs with the policy's own preference; here they keep the
given labels, as for every other method.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from metaapo.config import MethodConfig
from metaapo.method import Declaration, Method, SelectionRequest
from metaapo.selection import Floats, Selection, by_priority

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="ADPO")  # the number of confident prompts is unknown in advance, so assume all


class Params(MethodConfig):
    """Configuration keys of ADPO."""

    threshold: float = Field(0.5, gt=0, description="annotate up to this |beta * Delta| (gamma in the paper)")
    mix: float = Field(0.5, ge=0, le=1, description="weight of the offline loss; the online loss gets 1 - mix")


def margins(scores: Floats) -> Floats:
    """Recover beta * Delta from the scores log sigmoid(beta * Delta)."""
    return scores - np.log(-np.expm1(np.minimum(scores, -1e-12)))


def build(params: Params, context: RunContext) -> Method:
    """Sample prompts whose margin is within the threshold, smallest margins first if the budget is exceeded."""

    def unsure(request: SelectionRequest) -> Selection:
        sureness = np.abs(margins(request.scores.astype(float)))
        return by_priority(-sureness, -params.threshold, request.budget, request.rng)

    return Method(select=unsure, weigh=lambda pairs: params.mix)
