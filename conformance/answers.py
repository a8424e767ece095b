"""What each method must compute, written down a second time, from the papers, in numpy.

A case is a method with settings and its answer: the loss of a pair, the weight of an offline pair, the probability that
a prompt is sampled, and whatever else the method does. No line here is shared with `metaapo` or `baselines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from conformance.exact import (
    EDGES,
    LENGTHS,
    PROMPTS,
    RESPONSES,
    ROOT,
    Array,
    World,
    logps,
    sigmoid,
    softplus,
    token_logps,
)

BETA = 0.7
GAMMA = 0.4  # of SimPO
INDIFFERENT = np.log(0.5)
MATCHED_SHARE = 3 / 8  # share of prompts that the matched run sampled in iteration 2 (conformance/tabular.py)


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of pairs, each (..., pairs), summed over tokens; complex while a derivative is taken.

    Attributes:
        chosen: log pi(y_w), and so on for `rejected` and the reference.
        rejected: log pi(y_l).
        reference_chosen: log ref(y_w).
        reference_rejected: log ref(y_l).
        chosen_length: tokens, EOS included.
        rejected_length: tokens, EOS included.
        kl: KTO's z, real.
        greedy: log pi(y_0).
        reference_greedy: log ref(y_0).
    """

    chosen: Array
    rejected: Array
    reference_chosen: Array
    reference_rejected: Array
    chosen_length: Array
    rejected_length: Array
    kl: Array
    greedy: Array
    reference_greedy: Array

    @property
    def margin(self) -> Array:
        """Delta."""
        return self.chosen - self.rejected - self.reference_chosen + self.reference_rejected

    @property
    def margin_per_token(self) -> Array:
        """Difference of log pi per token; no reference."""
        return self.chosen / self.chosen_length - self.rejected / self.rejected_length


@dataclass(frozen=True)
class Seen:
    """What a weight or a selection may depend on, per row: real numbers, held constant in every derivative.

    Attributes:
        scores: of the offline pairs.
        learner: h_phi's map, of scores; None if the method has none.
        gains: reward margin of the online pair less that of the offline pair; nan without an online pair.
    """

    scores: Array
    learner: Callable[[Array], Array] | None
    gains: Array


def dpo_loss(pairs: Pairs, beta: float) -> Array:
    """Rafailov et al. 2023, eq. 7."""
    return softplus(-beta * pairs.margin)


def ipo_loss(pairs: Pairs, beta: float) -> Array:
    """Azar et al. 2023, eq. 17, with log-ratios per token."""
    chosen = (pairs.chosen - pairs.reference_chosen) / pairs.chosen_length
    rejected = (pairs.rejected - pairs.reference_rejected) / pairs.rejected_length
    return (chosen - rejected - 0.5 / beta) ** 2


def simpo_loss(pairs: Pairs, beta: float, gamma: float = GAMMA) -> Array:
    """Meng et al. 2024, eq. 6."""
    return softplus(gamma - beta * pairs.margin_per_token)


def kto_loss(pairs: Pairs, beta: float, desirable: float = 1.3, undesirable: float = 0.8) -> Array:
    """Ethayarajh et al. 2024, section 4: lambda - v, averaged over the two responses; 1 - sigmoid(x) = sigmoid(-x)."""
    chosen = sigmoid(beta * (pairs.kl - pairs.chosen + pairs.reference_chosen))
    rejected = sigmoid(beta * (pairs.rejected - pairs.reference_rejected - pairs.kl))
    return (desirable * chosen + undesirable * rejected) / 2


def no_prompt(seen: Seen) -> Array:
    """Nothing is sampled."""
    return np.zeros(len(seen.scores))


def every_prompt(seen: Seen) -> Array:
    """Every prompt is sampled."""
    return np.ones(len(seen.scores))


def share(fraction: float) -> Callable[[Seen], Array]:
    """Each prompt is sampled with the same probability."""
    return lambda seen: np.full(len(seen.scores), fraction)


def constant(weight: float) -> Callable[[Seen], Array]:
    """The same weight for each offline pair."""
    return lambda seen: np.full(len(seen.scores), weight)


def margin_of(scores: Array) -> Array:
    """The x of log sigmoid(x), in float64."""
    return -np.log(np.expm1(-scores))


def capped(probability: Callable[[Seen], Array], budget: float) -> Callable[[Seen], Array]:
    """All probabilities scaled by one factor so that their mean is at most the budget."""
    return lambda seen: probability(seen) * min(1.0, budget / probability(seen).mean())


@dataclass(frozen=True)
class Answer:
    """What a method must compute.

    Attributes:
        loss: of a pair.
        weight: of the offline pair.
        sampled: probability that a prompt is sampled.
        score: of an offline pair; None: minus the loss.
        bonus: added to the loss of an online pair.
        candidates: what is ranked for a sampled prompt: the responses drawn, or the greedy one and the offline pair.
        unsampled: what prompts without an online pair train on: the weighted offline loss, the whole one, or nothing.
        kept: share of the offline pairs that is trained on, highest scores first.
    """

    loss: Callable[[Pairs, float], Array] = dpo_loss
    weight: Callable[[Seen], Array] = constant(1.0)
    sampled: Callable[[Seen], Array] = no_prompt
    score: Callable[[Pairs, float], Array] | None = None
    bonus: Callable[[Pairs, float], Array] | None = None
    candidates: Literal["drawn", "greedy and offline"] = "drawn"
    unsampled: Literal["weighted", "whole", "dropped"] = "weighted"
    kept: float = 1.0


@dataclass(frozen=True)
class Case:
    """A method with settings.

    Attributes:
        module: the method's module, as in a configuration.
        settings: its entry in a configuration.
        answer: what it must compute.
        optimum: where training on all pairs, labelled by their exact preferences, must end; None: no closed form.
        budget: of the run.
    """

    module: str
    answer: Answer
    settings: Mapping[str, Any] = field(default_factory=dict)
    optimum: Literal["kl", "ipo", "simpo"] | None = None
    budget: float = 1.0


def mapped(seen: Seen) -> Array:
    """w = h_phi(score)."""
    return seen.learner(seen.scores)


def missing(seen: Seen) -> Array:
    """1 - h_phi(score)."""
    return 1 - seen.learner(seen.scores)


def variant(answer: Answer, budget: float = 1.0, optimum: str | None = None, **settings: Any) -> Case:
    """MetaAPO with settings; its meta-learner has 3 hidden units, since the kit takes a derivative for every weight."""
    return Case("metaapo", answer, {"meta_hidden": 3} | settings, optimum, budget)


HALF = constant(0.5)

CASES = {
    "dpo": Case("dpo", Answer(), optimum="kl"),
    "ipo": Case("ipo", Answer(ipo_loss), optimum="ipo"),
    "simpo": Case("simpo", Answer(simpo_loss), {"gamma": GAMMA}, optimum="simpo"),
    "kto": Case("kto", Answer(kto_loss), {"desirable_weight": 1.3, "undesirable_weight": 0.8}),
    "selective_dpo": Case("selective_dpo", Answer(kept=0.25), {"keep": 0.25}),
    "online_dpo": Case(
        "online_dpo", Answer(weight=constant(0.0), sampled=every_prompt, unsampled="dropped"), optimum="kl"
    ),
    "online_dpo, budget 0.25": Case(
        "online_dpo", Answer(weight=constant(0.0), sampled=share(0.25), unsampled="dropped"), budget=0.25
    ),
    "selm": Case(
        "selm",
        Answer(
            weight=constant(0.0),
            sampled=every_prompt,
            bonus=lambda pairs, beta: 0.3 * beta * (pairs.greedy - pairs.reference_greedy),
            candidates="greedy and offline",
            unsampled="dropped",
        ),
        {"alpha": 0.3},
    ),
    "adpo": Case(
        "adpo",
        Answer(weight=constant(0.3), sampled=lambda seen: (abs(margin_of(seen.scores)) <= 0.5) * 1.0),
        {"threshold": 0.5, "mix": 0.3},
    ),
    "random": Case("random", Answer(weight=HALF, sampled=share(MATCHED_SHARE))),
    "mixing": Case("mixing", Answer(weight=HALF, sampled=share(0.25)), budget=0.25, optimum="kl"),
    "oracle": Case("oracle", Answer(weight=HALF, sampled=every_prompt)),
    "oracle, weights": Case(
        "oracle",
        Answer(
            weight=lambda seen: np.where(np.isnan(seen.gains), 0.5, 0.5 - 0.5 * np.sign(np.nan_to_num(seen.gains))),
            sampled=every_prompt,
        ),
        {"choose": "weights"},
    ),
    "metaapo": variant(Answer(weight=mapped, sampled=missing)),
    "metaapo, budget 0.2": variant(Answer(weight=mapped, sampled=capped(missing, 0.2)), budget=0.2),
    "metaapo, no meta-learner": variant(
        Answer(weight=lambda seen: sigmoid(seen.scores), sampled=lambda seen: sigmoid(-seen.scores)), map="sigmoid"
    ),
    "metaapo, uniform weights": variant(Answer(weight=HALF, sampled=missing), optimum="kl", weights="uniform"),
    "metaapo, all sampled": variant(Answer(weight=mapped, sampled=every_prompt), select="all"),
    "metaapo, random": variant(Answer(weight=mapped, sampled=share(MATCHED_SHARE)), select="random"),
    "metaapo, threshold": variant(
        Answer(weight=mapped, sampled=lambda seen: (seen.scores < INDIFFERENT) * 1.0), select="threshold"
    ),
    "metaapo, score without beta": variant(
        Answer(weight=mapped, sampled=missing, score=lambda pairs, beta: -softplus(-pairs.margin)),
        fidelity={"score": "official-code"},
    ),
    "metaapo, unsampled dropped": variant(
        Answer(weight=mapped, sampled=missing, unsampled="dropped"), fidelity={"unsampled": "dropped"}
    ),
    "metaapo, unsampled whole": variant(
        Answer(weight=mapped, sampled=missing, unsampled="whole"), fidelity={"unsampled": "full"}
    ),
    "metaapo, simpo": variant(Answer(simpo_loss, weight=mapped, sampled=missing), objective="simpo", gamma=GAMMA),
    "metaapo, kto": variant(
        Answer(kto_loss, weight=mapped, sampled=missing), objective="kto", desirable_weight=1.3, undesirable_weight=0.8
    ),
}


@dataclass(frozen=True)
class Outcomes:
    """Rows as arrays of response numbers, (rows,); -1: no online pair."""

    prompt: Array
    chosen: Array
    rejected: Array
    online_chosen: Array
    online_rejected: Array
    greedy: Array

    def __getitem__(self, rows: Sequence[int]) -> Outcomes:
        """Some of the rows, in the order given."""
        return Outcomes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def has_online(self) -> Array:
        """Which rows have an online pair, bool."""
        return self.online_chosen >= 0


def outcomes_of(world: World, rows: Sequence[Any], answer: Answer) -> Outcomes:
    """The pairs of rows that have `prompt`, `chosen`, `rejected` and `drawn`.

    The online pair is the best and the worst candidate by reward; the candidates must differ.
    """
    greedy = [int(np.argmax(own)) for own in _greedy_scores(world)]
    online = []
    for row in rows:
        candidates = set(row.drawn or ())
        if row.drawn is not None and answer.candidates == "greedy and offline":
            candidates = {greedy[row.prompt], row.chosen, row.rejected}
        ranked = sorted(candidates, key=lambda y: world.rewards[row.prompt, y])
        online.append((ranked[-1], ranked[0]) if len(ranked) > 1 else (-1, -1))
    columns = zip(*((row.prompt, row.chosen, row.rejected) for row in rows))
    prompt, chosen, rejected = (np.array(column) for column in columns)
    return Outcomes(prompt, chosen, rejected, *np.array(online).T, np.array(greedy)[prompt])


def _greedy_scores(world: World) -> Array:
    """1 for the response whose every token is the most likely one, otherwise 0, (prompts, responses)."""
    scores = np.zeros((len(PROMPTS), len(RESPONSES)))
    for x, logits in enumerate(token_logps(world.policy)):
        for y, response in enumerate(RESPONSES):
            state, greedy = ROOT, True
            for token in response:
                likely = max((e for e in EDGES if e[0] == state), key=lambda e: logits[EDGES.index(e)])
                greedy, state = greedy and likely[1] == token, token
            scores[x, y] = greedy
    return scores


def pairs_of(world: World, rows: Outcomes, logits: Array, chosen: Array, rejected: Array) -> Pairs:
    """Pairs of the rows; KTO's z is estimated from the responses of the row before, the last one's for the first."""
    policy, reference = logps(logits), logps(world.reference)
    before = [np.roll(side, 1) for side in (chosen, rejected)]
    ratios = [policy.real[..., rows.prompt, y] - reference[rows.prompt, y] for y in before]
    kl = np.maximum(np.mean(ratios, axis=(0, -1)), 0) if len(chosen) > 1 else np.zeros(policy.shape[:-2])
    return Pairs(
        policy[..., rows.prompt, chosen],
        policy[..., rows.prompt, rejected],
        reference[rows.prompt, chosen],
        reference[rows.prompt, rejected],
        LENGTHS[chosen],
        LENGTHS[rejected],
        np.asarray(kl)[..., None],
        policy[..., rows.prompt, rows.greedy],
        reference[rows.prompt, rows.greedy],
    )


def scores_of(world: World, answer: Answer, rows: Outcomes, logits: Array, beta: float) -> Array:
    """Scores of the offline pairs, float64 (rows,)."""
    pairs = pairs_of(world, rows, logits, rows.chosen, rows.rejected)
    return answer.score(pairs, beta).real if answer.score else -answer.loss(pairs, beta).real


def gains_of(world: World, rows: Outcomes) -> Array:
    """Reward margin of the online pair less that of the offline pair, nan without one."""
    rewards = world.rewards[rows.prompt].T
    everywhere = np.arange(len(rows.prompt))
    online = rewards[rows.online_chosen, everywhere] - rewards[rows.online_rejected, everywhere]
    offline = rewards[rows.chosen, everywhere] - rewards[rows.rejected, everywhere]
    return np.where(rows.has_online, online - offline, np.nan)


@dataclass(frozen=True)
class Terms:
    """The parts of the rows' losses: L_off and L_on, (..., rows), and the weight w of the offline pair, (rows,)."""

    offline: Array
    online: Array
    weight: Array


def terms_of(
    world: World, answer: Answer, rows: Outcomes, logits: Array, beta: float, learner: Callable | None
) -> Terms:
    """The parts of each row's loss for logits (..., prompts, edges); L_on is 0 without an online pair."""
    offline = answer.loss(pairs_of(world, rows, logits, rows.chosen, rows.rejected), beta)
    online = np.zeros_like(offline)
    if (have := np.flatnonzero(rows.has_online)).size:
        some = rows[have]
        pairs = pairs_of(world, some, logits, some.online_chosen, some.online_rejected)
        online[..., have] = answer.loss(pairs, beta) + (answer.bonus(pairs, beta) if answer.bonus else 0)
    if answer.unsampled == "whole":
        online = np.where(rows.has_online, online, offline)
    scores = scores_of(world, answer, rows, world.policy, beta)
    return Terms(offline, online, answer.weight(Seen(scores, learner, gains_of(world, rows))))


def losses_of(terms: Terms) -> Array:
    """w L_off + (1 - w) L_on."""
    return terms.weight * terms.offline + (1 - terms.weight) * terms.online
