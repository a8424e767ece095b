"""The interface of a preference method: its answers to four questions. Everything else is the shared loop.

1. Which prompts are sampled online?           `select`
2. What makes the online pair?                 `candidates`
3. How do offline and online losses mix?       `weigh`, `objective`
4. What else is in the loss or learned?        `bonus`, `learner`

The assay's oracle also revises the pairs after annotation (`revise`); no real method needs to.

A method's module defines a class `Params` with its configuration keys, a function `build(params, context)` that returns
a `Method`, and a `DECLARATION` with what the estimate and the report need to know; `Params` and `DECLARATION` are
optional. These modules import torch only inside functions, so that reading a configuration stays fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metaapo import PROJECT
from metaapo.config import MethodConfig
from metaapo.data import Message
from metaapo.offline_pairs import OfflinePairs
from metaapo.selection import Floats, Selection

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.losses import Objective, PairLogps
    from metaapo.meta_learner import MetaLearner


Unsampled = Literal["scaled", "dropped", "full"]


@dataclass(frozen=True)
class ObjectiveTraits:
    """What the configuration needs to know about an objective before torch is imported.

    Attributes:
        settings: the keys of `ObjectiveParams` that it takes in addition to beta.
        beta: default that replaces `train.beta` if this objective's beta has a different scale; None: keep it.
        uses_kl: whether it uses `PairLogps.kl`.
        has_margin: whether it is a function of beta times a margin, so that a score without beta is meaningful.
    """

    settings: tuple[str, ...] = ()
    beta: float | None = None
    uses_kl: bool = False
    has_margin: bool = False


# The objectives that a configuration can name; each is the function of the same name in metaapo.losses.
OBJECTIVES = {
    "dpo": ObjectiveTraits(has_margin=True),
    "ipo": ObjectiveTraits(),
    # SimPO's beta scales log-probabilities per token (paper: 2.5)
    "simpo": ObjectiveTraits(settings=("gamma",), beta=2.5, has_margin=True),
    "kto": ObjectiveTraits(settings=("desirable_weight", "undesirable_weight"), uses_kl=True),
}


class ObjectiveParams(MethodConfig):
    """Configuration keys of methods that can use any objective of `metaapo.losses`."""

    objective: Literal[tuple(OBJECTIVES)] = Field("dpo", description="a function of metaapo.losses")
    gamma: float = Field(0.6, ge=0, description="simpo: target margin, in units of beta * log-probability per token")
    desirable_weight: float = Field(1.0, gt=0, description="kto: weight of chosen responses")
    undesirable_weight: float = Field(1.0, gt=0, description="kto: weight of rejected responses")

    @property
    def traits(self) -> ObjectiveTraits:
        """Traits of the objective."""
        return OBJECTIVES[self.objective]

    def overrides(self) -> dict[str, Any]:
        """The objective's beta, if its scale differs from DPO's."""
        return {} if self.traits.beta is None else {"beta": self.traits.beta}

    def objective_settings(self) -> dict[str, Any]:
        """The keys that the objective takes in addition to beta."""
        return {name: getattr(self, name) for name in self.traits.settings}

    def build_objective(self) -> Objective:
        """The objective with its settings filled in."""
        from metaapo import losses

        loss = partial(getattr(losses, self.objective), **self.objective_settings())
        return losses.Objective(loss, uses_kl=self.traits.uses_kl)


@dataclass(frozen=True)
class SelectionRequest:
    """What a method sees when it selects prompts.

    Attributes:
        pairs: the iteration's offline pairs, scored under the current policy.
        iteration: 1, 2, ...
        budget: cap on the expected fraction of sampled prompts, in (0, 1].
        rng: the random stream for this run, iteration and purpose.
    """

    pairs: OfflinePairs
    iteration: int
    budget: float
    rng: np.random.Generator

    @property
    def scores(self) -> Floats:
        """float (n,), the score of each offline pair, <= 0; nan unless the method `reads_scores` and `uses_offline`."""
        return self.pairs.scores.numpy()


@dataclass(frozen=True)
class Candidates:
    """What the annotator ranks for a selected prompt.

    Attributes:
        k: number of sampled responses; None: the configuration's `sampling.k`.
        greedy: also rank one greedily decoded response (SELM's y_0).
        with_offline: also rank the offline pair's responses (SELM).
    """

    k: int | None = None
    greedy: bool = False
    with_offline: bool = False


@dataclass(frozen=True)
class AnnotatedPrompt:
    """The pairs of a prompt after annotation, as text.

    Attributes:
        messages: the conversation; it ends with a user turn.
        offline: the offline pair's (chosen, rejected) responses.
        online: the online pair's; None if the prompt was not sampled or gave no pair.
    """

    messages: Sequence[Message]
    offline: tuple[str, str]
    online: tuple[str, str] | None


@dataclass(frozen=True)
class Annotations:
    """What a method sees when it revises an iteration's pairs.

    Attributes:
        prompts: all n prompts of the iteration.
        budget: the run's, in (0, 1].
        rng: the random stream for this run, iteration and purpose.
    """

    prompts: Sequence[AnnotatedPrompt]
    budget: float
    rng: np.random.Generator


@dataclass(frozen=True)
class Revision:
    """What becomes of the pairs of an iteration's n prompts.

    Attributes:
        keep: bool (n,); False: the prompt does not train on its online pair, though its annotations are paid for.
        weights: float (n,), offline weights in [0, 1] that replace `Method.weigh`'s where they are not nan; None: none.
    """

    keep: NDArray[np.bool_]
    weights: Floats | None = None


@dataclass(frozen=True)
class Method:
    """A method's decisions.

    Attributes:
        select: which prompts of an iteration get online samples.
        weigh: offline weight w in [0, 1], one number or (batch,), of offline pairs under the current policy, detached;
            the loss of a prompt is w * L_off + (1 - w) * L_on, a missing pair's loss being 0.
        objective: the loss of a pair; None: DPO's.
        score: score of offline pairs, (batch,), from their log-probabilities and beta; None: minus the loss.
        candidates: what the annotator ranks.
        bonus: a term added to the loss of each online pair, (batch,), from its log-probabilities and beta.
        learner: a meta-learner trained along with the policy.
        revise: which online pairs to train on, and fixed weights, decided after annotation; None: all pairs, `weigh`.
        order: indices of the prompts to train on, in this order; None: all, shuffled.
        first_iteration: the method to use in iteration 1 instead.
        uses_offline: False if w is always 0 and nothing depends on the offline pairs; this saves their forward passes,
            and the method sees nan instead of their scores.
        reads_scores: False if `select` and `order` ignore the offline pairs; this saves scoring them under the current
            policy, both see nan instead, and the ledger's offline_score is null.
        rates_offline: the reward model also scores the offline pairs, and the ledger counts these scores.
        unsampled: how prompts without an online pair are trained on: "scaled", with w * L_off; "full", with L_off, the
            offline pair taking the online place too; "dropped", not at all.
        keep_ties: also train on pairs with equal rewards or identical texts.
    """

    select: Callable[[SelectionRequest], Selection]
    weigh: Callable[[OfflinePairs], Tensor | float]
    objective: Objective | None = None
    score: Callable[[PairLogps, float], Tensor] | None = None
    candidates: Candidates = Candidates()
    bonus: Callable[[PairLogps, float], Tensor] | None = None
    learner: MetaLearner | None = None
    revise: Callable[[Annotations], Revision] | None = None
    order: Callable[[OfflinePairs], Sequence[int]] | None = None
    first_iteration: Method | None = None
    uses_offline: bool = True
    reads_scores: bool = True
    rates_offline: bool = False
    unsampled: Unsampled = "scaled"
    keep_ties: bool = False

    def at(self, iteration: int) -> Method:
        """The decisions of an iteration, counted from 1."""
        return self.first_iteration if iteration == 1 and self.first_iteration is not None else self


@dataclass(frozen=True)
class Declaration:
    """What the report and the estimate need to know about a method: its role and cost. Training never reads it.

    The defaults apply to modules without a declaration: a baseline of claim C1, titled by its name and priced as if it
    sampled every prompt, which is the most a method in the shared loop can cost.

    Attributes:
        title: for tables and figures; "": the module's name.
        role: a baseline of claim C1, a control, the method under test, or a released checkpoint.
        family: the pairs it trains on: given, sampled, or both.
        sampled: expected fraction of prompts sampled online, 0 to 1; an offline method declares 0.
        responses: responses per sampled prompt; None: the configuration's `sampling.k`. In the estimate, a setting of
            the method with this name takes its place.
        trains: False if nothing is trained.
        required: whether claim C1 needs this method to be supported.
        full_budget: all K responses of every prompt are annotated: the unit of annotation ratios and the rival in C2.
        matched_random: samples as many prompts as the method under test, at random: the control of C6.
        shows_signal: a plain method that must beat the SFT policy if there is anything to learn (health).
        dose_response: samples exactly its budget, at random, with equal weights: what annotations alone are worth.
        reads_gold: knows the gold reward, so it needs a world that a program can grade; a bound, not a rival.
        look: colour and marker in figures, the same in every experiment; None: any unused ones.
    """

    title: str = ""
    role: Literal["baseline", "control", "method", "checkpoint"] = "baseline"
    family: Literal["offline", "online", "hybrid"] = "hybrid"
    sampled: float = 1.0
    responses: int | None = None
    trains: bool = True
    required: bool = False
    full_budget: bool = False
    matched_random: bool = False
    shows_signal: bool = False
    dose_response: bool = False
    reads_gold: bool = False
    look: tuple[str, str] | None = None


def module_of(name: str, method: MethodConfig) -> str:
    """The importable name of the module behind an entry of the configuration."""
    return _importable(method.module or name)


def known_methods() -> list[str]:
    """Names of all method modules: MetaAPO and every file under `baselines/`."""
    files = (PROJECT / "baselines").glob("*.py")
    return ["metaapo", *sorted(file.stem for file in files if not file.stem.startswith("_"))]


def method_module(name: str) -> ModuleType:
    """Import a method's module, by a name from `known_methods`; it imports no torch at the top, so this is fast."""
    return importlib.import_module(_importable(name))


def declaration_of(name: str) -> Declaration:
    """Return the declaration of a method's module, or the defaults if it has none; names as in `known_methods`."""
    declared = getattr(method_module(name), "DECLARATION", Declaration())
    return declared if declared.title else replace(declared, title=name.replace("_", " "))


@cache
def known_declarations() -> dict[str, Declaration]:
    """The declarations of all method modules by the modules' names."""
    return {name: declaration_of(name) for name in known_methods()}


def _importable(name: str) -> str:
    return "metaapo.metaapo" if name == "metaapo" else f"baselines.{name}"
