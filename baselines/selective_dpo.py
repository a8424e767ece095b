"""Selective DPO (Gao et al. 2025, arXiv 2502.09650): train only on the easier pairs, easiest first.

A pair's difficulty is its loss under a model that has not seen it. The paper trains extra models on one half of the
data to score the other half. Here iterations use disjoint parts of the data, so the policy at the start of an iteration
has not seen its pairs and can score them at no extra cost. In iteration 1 the policy equals the reference, so all pairs
score the same and the iteration is plain DPO.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from baselines import dpo
from metaapo.config import MethodConfig
from metaapo.method import Declaration, Method
from metaapo.offline_pairs import OfflinePairs

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(title="Selective DPO", family="offline", sampled=0.0)


class Params(MethodConfig):
    """Configuration keys of Selective DPO."""

    keep: float = Field(0.5, gt=0, le=1, description="fraction of an iteration's pairs to train on (paper: 0.5)")


def build(params: Params, context: RunContext) -> Method:
    """Build DPO on the pairs with the highest scores, in descending order."""

    def easiest_first(pairs: OfflinePairs) -> NDArray[np.int64]:
        scores = pairs.scores.numpy()
        return np.argsort(-scores, kind="stable")[: max(1, round(params.keep * len(scores)))]

    plain = dpo.build(params, context)
    return replace(plain, order=easiest_first, first_iteration=plain, reads_scores=True)
