"""DPO (Rafailov et al. 2023, arXiv 2305.18290): the offline pairs alone, in the shared loop's iterations."""

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
    """No prompt is sampled; the loss of a prompt is its offline pair's."""
    return Method(select=lambda request: selection.none(len(request.scores)), weigh=lambda pairs: 1.0)
