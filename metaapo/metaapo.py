"""MetaAPO (arXiv 2509.23371): a learned map from a pair's score decides what is sampled and how it weighs.

With l_off the score of a prompt's offline pair and w = h_phi(l_off):
sample online where u > w, u ~ U(0, 1); train on w * L_off + (1 - w) * L_on, w recomputed at every step and detached;
every T_meta steps phi takes a step on the same loss with the policy frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from metaapo.config import MethodConfig, Section
from metaapo.method import Method, SelectionRequest
from metaapo.selection import Selection, by_probability

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.losses import PairLogps
    from metaapo.run import RunContext

Reading = Literal["paper", "official-code"]
OFFICIAL_MICRO_BATCH = 2  # --micro_train_batch_size of the authors' Llama script


class Fidelity(Section):
    """Where paper and authors' code part (docs/fidelity.md): each row can follow either."""

    score: Reading = Field("paper", description="h_phi's input: log sigmoid(beta Delta), or without beta")
    meta_init: Reading = Field("paper", description="spread weights, or all 0.1 (units stay identical)")
    unsampled: Reading = Field("paper", description="unsampled prompts train on w * L_off, or are dropped")
    meta_buffer: Reading = Field("paper", description="T_meta counts steps, or steps times the code's micro-batch")
    start: Reading = Field("paper", description="the experiment's start and reference, or DPO start, lagged reference")
    ties: Reading = Field("paper", description="pairs without information are dropped, or kept")


class Params(MethodConfig):
    """MetaAPO's keys in the configuration."""

    t_meta: int = Field(8, ge=1, description="policy optimizer steps between two meta-learner updates")
    meta_lr: float = Field(5e-3, gt=0)
    meta_weight_decay: float = Field(1e-4, ge=0)
    meta_hidden: int = Field(100, ge=1)
    fidelity: Fidelity = Fidelity()

    @field_validator("fidelity", mode="before")
    @classmethod
    def _one_word_for_all(cls, fidelity: Any) -> Any:
        return dict.fromkeys(Fidelity.model_fields, fidelity) if isinstance(fidelity, str) else fidelity

    def overrides(self) -> dict[str, Any]:
        """The section `train` where the authors' start and reference are asked for."""
        return {"start": "dpo", "reference": "lagged"} if self.fidelity.start == "official-code" else {}


def raw_score(pairs: PairLogps, beta: float) -> Tensor:
    """log sigmoid(Delta) without beta: the input of h_phi in the authors' code."""
    from torch.nn.functional import logsigmoid

    return logsigmoid(pairs.margin)


def build(params: Params, context: RunContext) -> Method:
    """The method's decisions and its meta-learner."""
    from metaapo.meta_learner import MetaLearner

    official = {row for row, reading in params.fidelity if reading == "official-code"}
    learner = MetaLearner(
        hidden=params.meta_hidden,
        lr=params.meta_lr,
        weight_decay=params.meta_weight_decay,
        period=params.t_meta * (OFFICIAL_MICRO_BATCH if "meta_buffer" in official else 1),
        init="symmetric" if "meta_init" in official else "spread",
        seed=context.run.seed,
    )

    def select(request: SelectionRequest) -> Selection:
        import torch

        weights = learner.weigh(torch.from_numpy(request.scores)).double().numpy()
        return by_probability(1.0 - weights, request.budget, request.rng)

    return Method(
        select=select,
        weigh=learner.weigh,
        score=raw_score if "score" in official else None,
        learner=learner,
        keep_unsampled="unsampled" not in official,
        keep_ties="ties" in official,
    )
