"""MetaAPO (arXiv 2509.23371): a learned map from a pair's score decides which prompts to sample and how to weight them.

Let l_off be the score of a prompt's offline pair and w = h_phi(l_off). Sample online if u > w with u ~ U(0, 1). Train
on w * L_off + (1 - w) * L_on, with w recomputed at every step and detached. Every T_meta steps, phi takes a step on
the same loss with the policy frozen.

The paper's ablations and this suite's controls are keys of this method (docs/methods.md): `map`, `select`, `weights`,
`fidelity`. Each changes one component and leaves the others as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from metaapo.config import ConfigError, Section
from metaapo.method import Declaration, Method, ObjectiveParams, SelectionRequest, Unsampled
from metaapo.offline_pairs import OfflinePairs
from metaapo.selection import Selection, by_priority, by_probability, random_fraction

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.loop.run import RunContext
    from metaapo.losses import PairLogps
    from metaapo.meta_learner import MetaLearner

    Weigh = Callable[[OfflinePairs], Tensor]

DECLARATION = Declaration(
    title="MetaAPO",
    role="method",
    sampled=0.6,  # as reported in the paper, and what the untrained meta-learner gives
    look=("#D55E00", "o"),
)

Reading = Literal["paper", "official-code"]
OFFICIAL_MICRO_BATCH = 2  # --micro_train_batch_size of the authors' Llama script
INDIFFERENT = math.log(0.5)  # score of a pair if the policy has no preference
TIE = 1e-6  # scores this close are equal; float32 kernels round a score near log 1/2 by about 1e-7


class Fidelity(Section):
    """Differences between the paper and the authors' code (docs/fidelity.md); each can follow either."""

    score: Reading = Field(
        "paper", description="objective dpo: h_phi's input is log sigmoid(beta Delta), or without beta"
    )
    meta_init: Reading = Field("paper", description="spread weights, or all 0.1 (units stay identical)")
    unsampled: Unsampled = Field(
        "scaled",
        description="prompts without an online pair: scaled, w * L_off (also `paper`); dropped (also `official-code`); "
        "full, L_off, as with the code's --unsampled_path",
    )
    meta_buffer: Reading = Field("paper", description="T_meta counts steps, or steps times the code's micro-batch size")
    start: Reading = Field(
        "paper", description="train.start and train.reference, or `official_start`, lagged reference"
    )
    ties: Reading = Field("paper", description="pairs that carry no information are dropped, or kept")
    simpo: Reading = Field(
        "paper", description="objective simpo: w from the score that selects and trains h_phi, or without beta"
    )

    @field_validator("unsampled", mode="before")
    @classmethod
    def _by_its_source(cls, unsampled: Any) -> Any:
        words = {"paper": "scaled", "official-code": "dropped"}
        return words.get(unsampled, unsampled) if isinstance(unsampled, str) else unsampled


class Params(ObjectiveParams):
    """Configuration keys of MetaAPO."""

    t_meta: int = Field(8, ge=1, description="policy optimizer steps between meta-learner updates")
    meta_lr: float = Field(5e-3, gt=0)
    meta_weight_decay: float = Field(1e-4, ge=0)
    meta_hidden: int = Field(100, ge=1)
    meta_inputs: list[Literal["scores", "length_gaps", "reward_gaps"]] = Field(
        ["scores"],
        description="inputs of h_phi; reward_gaps costs 2 annotations per prompt, which count towards the budget",
    )
    map: Literal["learned", "untrained", "frozen", "sigmoid"] = Field(
        "learned",
        description="w as a function of the score: the trained h_phi; h_phi kept at its initial values; the final "
        "h_phi of the run `match`, kept fixed; sigmoid(score)",
    )
    select: Literal["meta", "all", "random", "threshold"] = Field(
        "meta",
        description="prompts to sample: where u > w; all; as many as in the run `match`, at random; score < threshold",
    )
    threshold: float = Field(INDIFFERENT, le=0, description="for select: threshold; log 1/2: rejected is preferred")
    weights: Literal["meta", "uniform", "shuffled"] = Field(
        "meta", description="w in the loss: from the map; 1/2; from the map, but shifted by one prompt in the batch"
    )
    match: str = Field("metaapo", description="method whose run is matched, seed by seed")
    official_start: str = Field("dpo", description="train.start if fidelity.start is official-code")
    fidelity: Fidelity = Fidelity()

    @field_validator("fidelity", mode="before")
    @classmethod
    def _one_word_for_all(cls, fidelity: Any) -> Any:
        return dict.fromkeys(Fidelity.model_fields, fidelity) if isinstance(fidelity, str) else fidelity

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.meta_inputs[:1] != ["scores"] or len(set(self.meta_inputs)) < len(self.meta_inputs):
            raise ValueError("meta_inputs must begin with scores and contain no duplicates")
        if self.fidelity.score == "official-code" and not self.traits.has_margin:
            raise ValueError(f"fidelity.score official-code has no meaning for objective {self.objective}")
        return self

    def needs(self) -> list[str]:
        """A matched run must be finished first."""
        return [self.match] if self.map == "frozen" or self.select == "random" else []

    def overrides(self) -> dict[str, Any]:
        """Settings of the section `train` that follow the authors' start and reference, if requested."""
        official = {"start": self.official_start, "reference": "lagged"}
        return super().overrides() | (official if self.fidelity.start == "official-code" else {})


def build(params: Params, context: RunContext) -> Method:
    """Build the method's decisions and its meta-learner."""
    train = context.experiment.train_of(context.run.method)
    if params.weights == "shuffled" and train.micro_batch_size == 1:
        raise ConfigError(f"methods.{context.run.method}.weights: shuffled needs train.micro_batch_size of 2 or more")
    learner = None if params.map == "sigmoid" else build_learner(params, context)

    def weigh(pairs: OfflinePairs) -> Tensor:
        return pairs.scores.sigmoid() if learner is None else learner.weigh(learner.features(pairs))

    def weigh_in_loss(pairs: OfflinePairs) -> Tensor:
        if params.objective == "simpo" and params.fidelity.simpo == "official-code":
            pairs = replace(pairs, scores=without_beta(pairs.scores, train.beta))
        return weigh(pairs)

    return Method(
        select=build_select(params, context, weigh),
        weigh={
            "meta": weigh_in_loss,
            "uniform": lambda pairs: 0.5,
            "shuffled": lambda pairs: weigh_in_loss(pairs).roll(1),
        }[params.weights],
        objective=params.build_objective(),
        score=raw_score if params.objective == "dpo" and params.fidelity.score == "official-code" else None,
        learner=learner,
        rates_offline="reward_gaps" in params.meta_inputs,
        unsampled=params.fidelity.unsampled,
        keep_ties=params.fidelity.ties == "official-code",
    )


def build_learner(params: Params, context: RunContext) -> MetaLearner:
    """Build h_phi as it is at the start of the run."""
    from metaapo.meta_learner import MetaLearner

    learner = MetaLearner(
        hidden=params.meta_hidden,
        lr=params.meta_lr,
        weight_decay=params.meta_weight_decay,
        period=params.t_meta * (OFFICIAL_MICRO_BATCH if params.fidelity.meta_buffer == "official-code" else 1),
        init="symmetric" if params.fidelity.meta_init == "official-code" else "spread",
        seed=context.run.seed,
        inputs=params.meta_inputs,
        trained=params.map == "learned",
    )
    if params.map == "frozen":
        learner.load(context.other(params.match).iteration_path(context.experiment.iterations))
    return learner


def build_select(params: Params, context: RunContext, weigh: Weigh) -> Callable[[SelectionRequest], Selection]:
    """Build the selection rule named by `select`; a smaller budget samples less but keeps the rule's ordering."""

    def meta(request: SelectionRequest) -> Selection:
        return by_probability(1.0 - weigh(request.pairs).double().numpy(), request.budget, request.rng)

    def everything(request: SelectionRequest) -> Selection:
        return random_fraction(len(request.scores), request.budget, request.rng)

    def at_random(request: SelectionRequest) -> Selection:
        summary = context.summaries_of(params.match)[request.iteration - 1]
        return random_fraction(len(request.scores), summary["sampled"] / summary["prompts"], request.rng)

    def below_threshold(request: SelectionRequest) -> Selection:
        return by_priority(-request.scores, -params.threshold + TIE, request.budget, request.rng)

    return {"meta": meta, "all": everything, "random": at_random, "threshold": below_threshold}[params.select]


def raw_score(pairs: PairLogps, beta: float) -> Tensor:
    """Log sigmoid(Delta) without beta, h_phi's input in the authors' code (cli/sample.py, models/loss.py)."""
    from metaapo.losses import dpo

    return -dpo(pairs, 1.0)


def without_beta(scores: Tensor, beta: float) -> Tensor:
    """Turn scores log sigmoid(beta * x) into log sigmoid(x)."""
    from torch.nn.functional import logsigmoid

    return logsigmoid((scores - (-scores.expm1()).log()) / beta)
