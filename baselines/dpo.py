"""DPO (Rafailov et al. 2023, arXiv 2305.18290) on the offline pairs only, in the shared loop's iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaapo import selection
from metaapo.config import MethodConfig
from metaapo.method import Declaration, Method

if TYPE_CHECKING:
    from metaapo.loop.run import RunContext

DECLARATION = Declaration(
    title="DPO", family="offline", sampled=0.0, required=True, shows_signal=True, look=("#009E73", "^")
)


def build(params: MethodConfig, context: RunContext) -> Method:
    """Sample no prompt; the loss of a prompt is that of its offline pair."""
    return Method(
        select=lambda request: selection.none(len(request.scores)), weigh=lambda pairs: 1.0, reads_scores=False
    )
