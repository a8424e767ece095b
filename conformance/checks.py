"""The checks: what the shared loop computes in the enumerable world, against the exact answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conformance.answers import (
    BETA,
    GAMMA,
    Answer,
    Case,
    Outcomes,
    Seen,
    Terms,
    gains_of,
    losses_of,
    outcomes_of,
    scores_of,
    terms_of,
)
from conformance.exact import (
    PROMPTS,
    RESPONSES,
    STEP,
    Array,
    World,
    gradient,
    ipo_optimum,
    kl_optimum,
    logps,
    sigmoid,
    simpo_optimum,
    total_variation,
)
from conformance.tabular import Bench, Row, float64, gold_is, make_bench, make_context, params_of

EXACT = 1e-6  # a few float32 columns (the reference's log-probabilities, h_phi) round at 1e-7


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        subject: the method or loss.
        name: of the check.
        error: largest absolute difference; inf if the code raised an error, None if there was nothing to compare.
        tolerance: largest error that passes.
        note: the error's message, or why there was nothing to compare.
    """

    subject: str
    name: str
    error: float | None
    tolerance: float = EXACT
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the check passes; nan does not."""
        return self.error is None or self.error <= self.tolerance


def worst(ours: Any, expected: Any) -> float:
    """Largest absolute difference of two arrays; inf if their shapes differ."""
    ours, expected = np.asarray(ours, float), np.asarray(expected, float)
    if ours.shape != expected.shape:
        return math.inf
    return float(np.max(abs(ours - expected), initial=0.0))


# --- one iteration of a method ----------------------------------------------------------------------------------------


@dataclass
class Iteration:
    """Iteration 2 of a method in the enumerable world, up to its only batch, which holds every outcome.

    Attributes:
        bench: the loop's components.
        method: its decisions.
        seen: every offline pair once, as the method saw it when it selected.
        sampled: the probability that each of these is sampled, by the method.
        expected_scores: the exact scores of these pairs.
        expected_sampled: the exact probabilities.
        batch: the prompts to train on, one per outcome, in the loop's order.
        rows: the outcomes behind all prompts, by the prompts' ids.
        probability: of each row, exact.
        answer: what the method must compute.
        world: the models.
        learner: h_phi's map in numpy; None if there is none.
    """

    bench: Bench
    method: Any
    seen: Any
    sampled: Array
    expected_scores: Array
    expected_sampled: Array
    batch: list[Any]
    rows: list[Row]
    probability: Array
    answer: Answer
    world: World
    learner: Callable[[Array], Array] | None

    @cached_property
    def computed(self) -> tuple[torch.Tensor, Any]:
        """The loop's losses of the batch, (batch,), with gradients, and its columns."""
        from metaapo.loop.epoch import micro_batch_losses

        with float64():
            return micro_batch_losses(self.bench, self.method, self.bench.policies.policy, self.batch)

    @property
    def order(self) -> list[int]:
        """Numbers of the rows in the batch."""
        return [int(prompt.id) for prompt in self.batch]

    @property
    def outcomes(self) -> Outcomes:
        """The exact pairs of the batch."""
        return outcomes_of(self.world, [self.rows[i] for i in self.order], self.answer)

    def terms(self, logits: Array) -> Terms:
        """The exact parts of each loss of the batch."""
        return terms_of(self.world, self.answer, self.outcomes, logits, BETA, self.learner)

    def losses(self, logits: Array) -> Array:
        """The exact loss of each prompt of the batch, (..., batch)."""
        return losses_of(self.terms(logits))


def offline_rows() -> list[Row]:
    """Every ordered pair of different responses to every prompt."""
    numbers = range(len(RESPONSES))
    return [Row(x, a, b) for x in range(len(PROMPTS)) for a, b in itertools.permutations(numbers, 2)]


def label_probability(world: World, row: Row) -> float:
    """Probability of an offline pair: all unordered pairs are equally likely, labels follow the rewards."""
    unordered = len(PROMPTS) * math.comb(len(RESPONSES), 2)
    return world.preferences[row.prompt, row.chosen, row.rejected] / unordered


def outcomes_of_pair(world: World, row: Row, sampled: float, answer: Answer) -> Iterator[tuple[Row, float]]:
    """Everything that may happen to a prompt with this offline pair, with its probability."""
    if sampled < 1:
        yield row, 1 - sampled
    if answer.candidates != "drawn":
        draws = [((0, 0), 1.0)]  # nothing is drawn at random
    else:
        policy = np.exp(logps(world.policy))[row.prompt]
        numbers = itertools.combinations_with_replacement(range(len(policy)), 2)
        draws = [((i, j), policy[i] * policy[j] * (1 if i == j else 2)) for i, j in numbers]
    if sampled > 0:
        yield from ((replace(row, drawn=drawn), sampled * probability) for drawn, probability in draws)


def iterate(case: Case, name: str, world: World, folder: Path) -> Iteration:
    """Run a method in the loop, until its batch is complete; annotation sees every possible draw."""
    from metaapo.loop import epoch
    from metaapo.loop.offline import score_offline
    from metaapo.loop.online import annotate_selected, reuse_offline_pairs
    from metaapo.loop.stages import Clock
    from metaapo.method import SelectionRequest, method_module
    from metaapo.selection import Selection

    context = make_context(name, case.module, {"train": {"beta": BETA}} | dict(case.settings), case.budget, folder)
    method = method_module(case.module).build(params_of(context), context).at(2)
    learner = None if method.learner is None else disturbed_map(method.learner)
    with float64(), gold_is(world):
        bench = make_bench(world, context)
        pairs = offline_rows()
        bench.hold(pairs)
        _, seen = score_offline(bench, method, 2)
        request = SelectionRequest(seen, 2, case.budget, context.rng(2, "select"))
        sampled = method.select(request).probability
        exact_pairs = outcomes_of(world, pairs, case.answer)
        scores = scores_of(world, case.answer, exact_pairs, world.policy, BETA)
        exact_sampled = case.answer.sampled(Seen(scores, learner, gains_of(world, exact_pairs)))
        rows, probability = [], []
        for row, p in zip(pairs, exact_sampled):
            for outcome, chance in outcomes_of_pair(world, row, p, case.answer):
                rows.append(outcome)
                probability.append(chance * label_probability(world, row))
        bench.hold(rows)
        prompts, seen_rows = score_offline(bench, method, 2)
        drawn = np.array([row.drawn is not None for row in rows])
        annotate_selected(bench, method, 2, prompts, Selection(drawn, drawn.astype(float)), Clock())
        if method.unsampled == "full":
            reuse_offline_pairs(prompts)
        (batch,) = epoch._batches(bench, method, 2, prompts, seen_rows)
    return Iteration(
        bench, method, seen, sampled, scores, exact_sampled, batch, rows, np.array(probability),
        case.answer, world, learner,
    )  # fmt: skip


def disturbed_map(learner: torch.nn.Module) -> Callable[[Array], Array]:
    """Move a meta-learner's weights away from their start, where biases are 0, and return its map in numpy."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return map_of([parameter.detach().double().numpy() for parameter in learner.parameters()])


def map_of(parameters: Sequence[Array]) -> Callable[[Array], Array]:
    """h(s) = sigmoid(V tanh(W s + b) + c) of scores (n,)."""
    weight, bias, out_weight, out_bias = parameters
    return lambda scores: sigmoid(np.tanh(scores[:, None] @ weight.T + bias) @ out_weight[0] + out_bias[0])


# --- checks of methods that train in the shared loop ------------------------------------------------------------------


def check_scores(it: Iteration) -> float:
    """Scores of the offline pairs, where the method reads them."""
    return worst(it.seen.scores, it.expected_scores) if it.method.uses_offline and it.method.reads_scores else 0.0


def check_selection(it: Iteration) -> float:
    """The probability that each prompt is sampled."""
    return worst(it.sampled, it.expected_sampled)


def check_draws(it: Iteration) -> float:
    """How often each prompt is drawn over an even grid of random numbers, against its probability."""
    from metaapo.method import SelectionRequest

    n = len(it.sampled)
    draws = [
        it.method.select(SelectionRequest(it.seen, 2, it.bench.context.run.budget, Grid(number, 10 * n))).sampled
        for number in range(10 * n)
    ]
    return worst(np.mean(draws, axis=0), it.expected_sampled)


@dataclass(frozen=True)
class Grid:
    """The `number`-th of `size` random streams that together are exactly uniform."""

    number: int
    size: int

    def random(self, n: int) -> Array:
        """One number of the grid, n times."""
        return np.full(n, (self.number + 0.5) / self.size)

    def permutation(self, n: int) -> Array:
        """One of the n rotations."""
        return np.roll(np.arange(n), self.number)


def check_pairs(it: Iteration) -> float:
    """Number of prompts whose online pair is not the best and the worst candidate, or that are trained on wrongly."""
    kept = expected_batch(it)
    wrong = len(set(it.order) ^ kept) + len(it.order) - len(set(it.order))
    rows = it.outcomes
    for prompt, best, least, greedy in zip(it.batch, rows.online_chosen, rows.online_rejected, rows.greedy):
        if best < 0 and it.answer.unsampled == "whole":
            wrong += prompt.online is not prompt.offline
        elif best < 0 or prompt.online is None:
            wrong += (best >= 0) != (prompt.online is not None)
        else:
            pair = prompt.online
            wrong += tuple(pair.chosen) != RESPONSES[best] or tuple(pair.rejected) != RESPONSES[least]
            wrong += it.answer.bonus is not None and tuple(pair.greedy) != RESPONSES[greedy]
    return float(wrong)


def expected_batch(it: Iteration) -> set[int]:
    """Numbers of the rows that must be trained on."""
    rows = outcomes_of(it.world, it.rows, it.answer)
    kept = np.flatnonzero(rows.has_online) if it.answer.unsampled == "dropped" else np.arange(len(it.rows))
    scores = scores_of(it.world, it.answer, rows, it.world.policy, BETA)
    easiest = sorted(kept, key=lambda i: -scores[i])[: round(it.answer.kept * len(kept))]
    return {int(i) for i in easiest}


def check_losses(it: Iteration) -> float:
    """The loss of every outcome."""
    losses, _ = it.computed
    return worst(losses.detach(), it.losses(it.world.policy))


def check_weights(it: Iteration) -> float:
    """The weight of every offline pair, where it matters."""
    _, columns = it.computed
    return worst(columns.weights, it.terms(it.world.policy).weight)


def check_gradient(it: Iteration) -> float:
    """The gradient of the expected loss: the sum over all outcomes, weighted with their exact probabilities."""
    probability = it.probability[it.order]
    losses, _ = it.computed
    expected_loss = (losses * torch.from_numpy(probability)).sum()
    (ours,) = torch.autograd.grad(expected_loss, it.bench.policies.policy.logits, retain_graph=True)
    expected = gradient(lambda logits: (it.losses(logits) * probability).sum(-1), it.world.policy)
    return worst(ours, expected)


def check_reference(it: Iteration) -> float:
    """The gradient that reaches the reference, which is to have none."""
    reference = it.bench.policies.reference
    losses, _ = it.computed
    if not losses.requires_grad:
        return 0.0
    (grad,) = torch.autograd.grad(losses.sum(), reference.logits, retain_graph=True, allow_unused=True)
    return 0.0 if grad is None else float(grad.abs().max())


def check_batch(it: Iteration) -> float:
    """The gradient of an optimizer step: that of the mean over its prompts, however they are split for memory."""
    from metaapo.loop.epoch import accumulate_gradients
    from metaapo.loop.step import objective_of

    policies, policy = it.bench.policies, it.bench.policies.policy
    if not objective_of(it.method).uses_kl:  # which is estimated within a micro-batch
        policies.config = policies.config.model_copy(update={"micro_batch_size": math.ceil(len(it.batch) / 3)})
    policy.zero_grad()
    with float64():
        accumulate_gradients(it.bench, it.method, policy, it.batch)
    return worst(policy.logits.grad, gradient(lambda logits: it.losses(logits).mean(-1), it.world.policy))


CHECKS: dict[str, Callable[[Iteration], float]] = {
    "scores": check_scores,
    "selection": check_selection,
    "draws": check_draws,
    "pairs": check_pairs,
    "losses": check_losses,
    "weights": check_weights,
    "gradient": check_gradient,
    "reference": check_reference,
    "batch": check_batch,
}


TOLERANCES = {"draws": 1 / (10 * len(PROMPTS) * math.perm(len(RESPONSES), 2))}  # a step of the grid


def check_case(name: str, case: Case, world: World, folder: Path) -> list[Check]:
    """Run all checks of a method that trains in the shared loop."""
    it = iterate(case, "method", world, folder)
    found = [Check(name, check, compute(it), TOLERANCES.get(check, EXACT)) for check, compute in CHECKS.items()]
    if it.learner is not None:
        found += [Check(name, check, compute(it)) for check, compute in META_CHECKS.items()]
    if case.optimum is not None:
        found.append(Check(name, f"{case.optimum} optimum", check_optimum(it, case.optimum)))
    return found


# --- the meta-learner -------------------------------------------------------------------------------------------------


def meta_gradient(it: Iteration, rows: Sequence[int]) -> list[Array]:
    """Gradient of mean[h(s) L_off + (1 - h(s)) L_on] over rows of the batch with both pairs, for each parameter."""
    terms = it.terms(it.world.policy)
    scores = scores_of(it.world, it.answer, it.outcomes, it.world.policy, BETA)[rows]
    offline, online = terms.offline[rows], terms.online[rows]
    parameters = parameters_of(it)
    gradients = []
    for number, parameter in enumerate(parameters):
        slopes = np.zeros(parameter.shape)
        for index in np.ndindex(parameter.shape):
            moved = [p.astype(complex) for p in parameters]
            moved[number][index] += 1j * STEP
            weights = map_of(moved)(scores)
            slopes[index] = (weights * offline + (1 - weights) * online).mean().imag / STEP
        gradients.append(slopes)
    return gradients


def parameters_of(it: Iteration) -> list[Array]:
    """The meta-learner's parameters, copied, in float64."""
    return [parameter.detach().double().numpy().copy() for parameter in it.method.learner.parameters()]


def both_pairs(it: Iteration) -> Array:
    """Which rows of the batch the meta-learner sees, in order."""
    every = it.answer.unsampled == "whole"
    return np.flatnonzero(it.outcomes.has_online | every)


def check_meta_gradient(it: Iteration) -> float:
    """The gradient of the meta-learner's loss on the whole batch."""
    learner, (_, columns) = it.method.learner, it.computed
    has_online, captured = columns.has_online, []
    learner.start_iteration()
    learner.optimizer.step = lambda: captured.extend(p.grad.double().numpy().copy() for p in learner.parameters())
    learner.update(columns.features[has_online], columns.offline[has_online], columns.online[has_online])
    return max(worst(ours, exact) for ours, exact in zip(captured, meta_gradient(it, both_pairs(it)), strict=True))


def check_meta_update(it: Iteration) -> float:
    """The parameters after T_meta steps: AdamW's first step on the prompts of all of them, and none before."""
    from metaapo.loop.epoch import _observe

    learner, (_, columns) = it.method.learner, it.computed
    learner.start_iteration()
    before, period = parameters_of(it), learner.period
    steps = [columns.each(lambda column, first=first: column[first::period]) for first in range(period)]
    exact = meta_gradient(it, both_pairs(it))
    expected = [
        p * (1 - learner.lr * learner.weight_decay) - learner.lr * g / (abs(g) + 1e-8) for p, g in zip(before, exact)
    ]
    for step in steps[:-1]:
        _observe(it.method, step)
    early = max(map(worst, parameters_of(it), before))
    _observe(it.method, steps[-1])
    return early + max(map(worst, parameters_of(it), expected))


META_CHECKS: dict[str, Callable[[Iteration], float]] = {
    "meta-gradient": check_meta_gradient,
    "meta-update": check_meta_update,
}


# --- optima -----------------------------------------------------------------------------------------------------------


def optimum_of(world: World, kind: str, beta: float = BETA) -> Array:
    """The distribution that training with exact preferences must reach, (prompts, responses)."""
    if kind == "kl":
        return kl_optimum(world, beta)
    return ipo_optimum(world, beta) if kind == "ipo" else simpo_optimum(world, beta, GAMMA)


def check_optimum(it: Iteration, kind: str) -> float:
    """Total variation between the optimum and the policy trained on every pair, weighted by its exact preference."""
    from metaapo.loop.epoch import micro_batch_losses
    from metaapo.loop.offline import score_offline
    from metaapo.loop.online import _add_reference_logps

    rows, policy = offline_rows(), it.bench.policies.policy
    probability = torch.tensor([label_probability(it.world, row) for row in rows])
    with float64():
        it.bench.hold(rows)
        prompts, _ = score_offline(it.bench, it.method, 2)
        if not it.method.uses_offline:
            for prompt in prompts:
                prompt.online = prompt.offline
            _add_reference_logps(it.bench, it.method, 2, prompts)
        minimise(lambda: (micro_batch_losses(it.bench, it.method, policy, prompts)[0] * probability).sum(), policy)
    return total_variation(policy.probabilities(), optimum_of(it.world, kind))


def minimise(loss_of: Callable[[], torch.Tensor], model: torch.nn.Module) -> None:
    """Minimise a smooth function of a model's parameters to float64 precision."""
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-18,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    optimizer.step(closure)
