"""The annotation ledger: the cost and outcome of each prompt. Quantities have the same names in code and on disk.

`LedgerRow` is one line of annotations.jsonl. `totals` sums an iteration's rows; its keys are also used in summary.json,
run.json["totals"] (all iterations) and the report's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Outcome = Literal["not_sampled", "scored", "pair", "tie", "identical", "left_out"]


@dataclass
class LedgerRow:
    """Cost and outcome of one prompt in an iteration.

    Attributes:
        id: the prompt's id.
        task: the kind of prompt if the world has kinds, otherwise "".
        offline_score: preference score of the offline pair at the start of the iteration, <= 0; None if the method does
            not read scores.
        sample_probability: the prompt's probability of being sampled online, in [0, 1].
        sampled: whether it was sampled.
        responses_generated: responses sampled from the policy.
        tokens_generated: tokens in those responses, including EOS.
        responses_scored: responses scored by the reward model, the unit of the annotation budget.
        reward_model_calls: distinct texts among those; equal texts for one prompt are scored once.
        outcome: not_sampled; pair; tie (all scores equal) or identical (all texts equal), which carry no information;
            scored: scored by a method that makes no pairs; left_out: a pair that the method decided not to train on.
        reward_chosen: reward of the response that scored highest, before `sampling.cut_penalty`; None if there is none.
        reward_rejected: reward of the response that scored lowest.
    """

    id: str
    task: str = ""
    offline_score: float | None = None
    sample_probability: float = 0.0
    sampled: bool = False
    responses_generated: int = 0
    tokens_generated: int = 0
    responses_scored: int = 0
    reward_model_calls: int = 0
    outcome: Outcome = "not_sampled"
    reward_chosen: float | None = None
    reward_rejected: float | None = None

    def record(self) -> dict[str, Any]:
        """The row as it is written to annotations.jsonl."""
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """Sums over ledger rows; `sampled` counts prompts; `pairs`, `ties`, `identical`, `left_out`: outcomes."""

    prompts: int = 0
    sampled: int = 0
    responses_generated: int = 0
    tokens_generated: int = 0
    responses_scored: int = 0
    reward_model_calls: int = 0
    pairs: int = 0
    ties: int = 0
    identical: int = 0
    left_out: int = 0

    def annotation_ratio(self, k: int) -> float:
        """Responses scored, relative to `k` for every prompt; 0 if there are no prompts."""
        return self.responses_scored / (k * self.prompts) if self.prompts else 0.0


def totals(rows: Sequence[LedgerRow]) -> Totals:
    """Compute the totals of an iteration from its ledger."""
    outcomes = [row.outcome for row in rows]
    return Totals(
        prompts=len(rows),
        sampled=sum(row.sampled for row in rows),
        responses_generated=sum(row.responses_generated for row in rows),
        tokens_generated=sum(row.tokens_generated for row in rows),
        responses_scored=sum(row.responses_scored for row in rows),
        reward_model_calls=sum(row.reward_model_calls for row in rows),
        pairs=outcomes.count("pair"),
        ties=outcomes.count("tie"),
        identical=outcomes.count("identical"),
        left_out=outcomes.count("left_out"),
    )


def run_totals(summaries: Iterable[Mapping[str, Any]]) -> Totals:
    """Compute the totals of a run from the summaries of its iterations."""
    summaries = list(summaries)
    return Totals(**{field.name: sum(summary[field.name] for summary in summaries) for field in fields(Totals)})
