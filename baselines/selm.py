"""SELM (Zhang et al. 2024, arXiv 2405.19332): rank one greedy response with the offline pair, and add an optimism term.

In each iteration, the policy at its start generates one greedy response y_0 per prompt. The annotator ranks
{y_0, y_w, y_l}, and the best and the worst form the pair. The loss of a pair, as in the authors' code
(scripts/selm_trainer.py):

    -log sigmoid(beta * Delta) + alpha * beta * [log pi(y_0 given x) - log ref(y_0 given x)]

Minimising the second term moves probability away from what the reference would say anyway: that is the optimism.
Iteration 1 is plain DPO on the offline pairs; the reference is the policy at the start of the iteration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from baselines import dpo, online_dpo
from metaapo.config import MethodConfig
from metaapo.method import Candidates, Declaration, Method

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.loop.run import RunContext
    from metaapo.losses import PairLogps

DECLARATION = Declaration(
    title="SELM",
    responses=1,  # greedy; only from iteration 2 on, which the estimate ignores
    required=True,
    look=("#E69F00", "v"),
)


class Params(MethodConfig):
    """Configuration keys of SELM."""

    alpha: float = Field(1e-3, ge=0, description="weight of the optimism term (paper: 1e-3 Zephyr, 1e-4 Llama-3)")
    extra: int = Field(0, ge=0, description="sampled responses to rank as well (8 give the 112 % in MetaAPO's figure)")

    def overrides(self) -> dict[str, Any]:
        """The reference moves with the iterations."""
        return {"reference": "moving"}


def build(params: Params, context: RunContext) -> Method:
    """Build online DPO with other candidates and the optimism term, after one iteration of DPO."""

    def optimism(pairs: PairLogps, beta: float) -> Tensor:
        return params.alpha * beta * (pairs.greedy - pairs.reference_greedy)

    return replace(
        online_dpo.build(online_dpo.Params(), context),
        candidates=Candidates(k=params.extra, greedy=True, with_offline=True),
        bonus=optimism,
        first_iteration=dpo.build(params, context),
    )
