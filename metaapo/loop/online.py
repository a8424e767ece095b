"""The middle stages of an iteration: sample the selected prompts, rank the candidates, make the online pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from metaapo.loop.annotate import best_worst, scores_of
from metaapo.loop.probe import draw
from metaapo.loop.prompts import PreferencePair, Prompt
from metaapo.loop.stages import Clock
from metaapo.loop.workbench import Workbench
from metaapo.method import AnnotatedPrompt, Annotations, Method, Revision
from metaapo.models.generate import Response
from metaapo.models.load import encode_response
from metaapo.selection import Selection


def annotate_selected(
    bench: Workbench, method: Method, iteration: int, prompts: list[Prompt], selection: Selection, clock: Clock
) -> list[Response] | None:
    """Create online pairs for the selected prompts and record the cost in the ledger.

    Returns:
        responses for the run's first probe, which the engine that samples draws too; None in later iterations, and if
        the sampler works while the policy is trained, and so without an engine.
    """
    enter_selection(prompts, selection, rated=2 if method.rates_offline else 0)
    selected = [prompt for prompt in prompts if prompt.ledger.sampled]
    first_probe = None
    with clock("sample"), bench.sampler.one_engine():
        responses = _kept(bench, iteration, "responses", lambda: _sample(bench, method, iteration, selected))
        if iteration == 1 and not bench.sampler.works_while_training:
            probed = _kept(bench, iteration, "first_probe", lambda: [[r] for r in draw(bench, iteration, 0, prompts)])
            first_probe = [response for (response,) in probed]
    if not selected:
        return first_probe
    texts = [[response.text for response in candidates] for candidates in responses]
    if method.candidates.with_offline:
        texts = [[*sampled, *prompt.texts] for sampled, prompt in zip(texts, selected)]
    with clock("annotate"):
        rewards = bench.kept.numbers(iteration, "rewards", lambda: bench.annotator.rewards(selected, texts))
        for prompt, *candidates in zip(selected, responses, texts, rewards):
            _make_pair(bench, method, prompt, *candidates)
        if method.revise is not None:
            _revise(bench, method.revise, iteration, prompts)
        _add_reference_logps(bench, method, iteration, [prompt for prompt in selected if prompt.online is not None])
    return first_probe


def _kept(
    bench: Workbench, iteration: int, stage: str, compute: Callable[[], list[list[Response]]]
) -> list[list[Response]]:
    """Responses, one list per prompt, drawn once."""
    return bench.kept.once(
        iteration,
        stage,
        compute,
        rows_of=lambda drawn: [[asdict(response) for response in row] for row in drawn],
        from_rows=lambda rows: [[Response(**response) for response in row] for row in rows],
    )


def reuse_offline_pairs(prompts: list[Prompt]) -> None:
    """Let the offline pair of each prompt without an online pair take that place too, so that its loss counts fully."""
    for prompt in prompts:
        prompt.online = prompt.online or prompt.offline


def enter_selection(prompts: list[Prompt], selection: Selection, rated: int = 0) -> None:
    """Record in the ledger which prompts are sampled, and the `rated` responses of each that are already scored."""
    for prompt, sampled, probability in zip(prompts, selection.sampled, selection.probability):
        prompt.ledger.sampled, prompt.ledger.sample_probability = bool(sampled), float(probability)
        prompt.ledger.responses_scored = prompt.ledger.reward_model_calls = rated


def _sample(bench: Workbench, method: Method, iteration: int, selected: list[Prompt]) -> list[list[Response]]:
    """Sample the policy's candidates for each prompt, the greedy one first."""
    candidates, sampling = method.candidates, bench.sampling
    seed = bench.context.torch_seed(iteration, "sample")
    responses: list[list[Response]] = [[] for _ in selected]
    if not selected:
        return responses
    if candidates.greedy:
        responses = bench.sampler.sample(selected, 1, 0.0, 1.0, seed)
    k = sampling.k if candidates.k is None else candidates.k
    if k:
        sampled = bench.sampler.sample(selected, k, sampling.temperature, sampling.top_p, seed)
        responses = [[*first, *others] for first, others in zip(responses, sampled)]
    return responses


def _make_pair(
    bench: Workbench, method: Method, prompt: Prompt, responses: list[Response], texts: list[str], rewards: list[float]
) -> None:
    """Form the online pair from the best and the worst candidate, unless it carries no information."""
    pair = best_worst(texts, scores_of(rewards, responses, bench.sampling.cut_penalty))
    prompt.ledger.responses_generated += len(responses)
    prompt.ledger.tokens_generated += sum(len(response.token_ids) for response in responses)
    prompt.ledger.responses_scored += len(texts)
    prompt.ledger.reward_model_calls += len(set(texts))
    prompt.ledger.reward_chosen, prompt.ledger.reward_rejected = rewards[pair.chosen], rewards[pair.rejected]
    prompt.ledger.outcome = pair.outcome
    if pair.outcome == "pair" or method.keep_ties:
        chosen, rejected = (
            responses[i].token_ids if i < len(responses) else encode_response(bench.policies.tokenizer, texts[i])
            for i in (pair.chosen, pair.rejected)
        )
        prompt.online = PreferencePair(chosen, rejected, greedy=responses[0].token_ids)
        prompt.online_texts = texts[pair.chosen], texts[pair.rejected]


def _revise(bench: Workbench, revise: Callable[[Annotations], Revision], iteration: int, prompts: list[Prompt]) -> None:
    """Let the method leave out online pairs, which stay in the ledger, and fix weights."""
    context = bench.context
    annotated = [AnnotatedPrompt(prompt.messages, prompt.texts, prompt.online_texts) for prompt in prompts]
    revision = revise(Annotations(annotated, context.run.budget, context.rng(iteration, "revise")))
    for prompt, keep in zip(prompts, revision.keep, strict=True):
        if prompt.online is not None and not keep:
            prompt.online, prompt.ledger.outcome = None, "left_out"
    if revision.weights is not None:
        for prompt, weight in zip(prompts, revision.weights.tolist(), strict=True):
            prompt.fixed_weight = weight


def _add_reference_logps(bench: Workbench, method: Method, iteration: int, prompts: list[Prompt]) -> None:
    """Compute the frozen reference's log-probabilities once per iteration instead of once per step."""
    names = ("chosen", "rejected", "greedy") if method.bonus is not None else ("chosen", "rejected")
    responses = [getattr(prompt.online, name) for name in names for prompt in prompts]
    ids = [prompt.ids for prompt in prompts] * len(names)
    logps = bench.kept.numbers(
        iteration, "online_logps", lambda: bench.scorer.logps(bench.policies.reference, ids, responses).tolist()
    )
    for number, name in enumerate(names):
        for prompt, logp in zip(prompts, logps[number * len(prompts) : (number + 1) * len(prompts)], strict=True):
            prompt.online = replace(prompt.online, **{f"reference_{name}": logp})
