"""The annotation ledger: what each prompt cost and what came of it. One name per quantity, in code and on disk.

`LedgerRow` is a line of annotations.jsonl. `totals` adds an iteration's rows up: its keys are those of summary.json, of
run.json["totals"] (all iterations) and of the report's tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Outcome = Literal["not_sampled", "scored", "pair", "tie", "identical"]


@dataclass
class LedgerRow:
    """What one prompt of an iteration cost and what came of it.

    Attributes:
        id: of the prompt.
        task: the kind of prompt, where the world has kinds; else "".
        offline_score: preference score of the offline pair at the start of the iteration, <= 0; None where the method
            does not look at offline pairs.
        sample_probability: the chance that the prompt had of being sampled online, in [0, 1].
        sampled: whether it was.
        responses_generated: responses that the policy sampled for it.
        tokens_generated: tokens in them, EOS included.
        responses_scored: responses that the reward model scored: the unit of the annotation budget.
        reward_model_calls: distinct texts among them; equal texts for one prompt are scored once.
        outcome: not_sampled; pair; tie (all rewards equal) or identical (all texts equal), which carry no information;
            scored: by a method that makes no pairs.
        reward_chosen: highest reward of the responses scored; None where none was.
        reward_rejected: lowest reward of the responses scored; None where none was.
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
    """Sums over ledger rows; `sampled` counts prompts, `pairs`, `ties` and `identical` count outcomes."""

    prompts: int = 0
    sampled: int = 0
    responses_generated: int = 0
    tokens_generated: int = 0
    responses_scored: int = 0
    reward_model_calls: int = 0
    pairs: int = 0
    ties: int = 0
    identical: int = 0

    def annotation_ratio(self, k: int) -> float:
        """Responses scored, relative to `k` for every prompt; 0 where there was no prompt."""
        return self.responses_scored / (k * self.prompts) if self.prompts else 0.0


def totals(rows: Sequence[LedgerRow]) -> Totals:
    """The totals of an iteration from its ledger."""
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
    )


def run_totals(summaries: Iterable[Mapping[str, Any]]) -> Totals:
    """The totals of a run from its iterations' summaries."""
    summaries = list(summaries)
    return Totals(**{field.name: sum(summary[field.name] for summary in summaries) for field in fields(Totals)})
