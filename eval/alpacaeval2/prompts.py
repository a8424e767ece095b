"""AlpacaEval's official judge prompt, read from the package that contains it or from a user's file."""

from __future__ import annotations

import re
from pathlib import Path

from eval.packages import package_file
from metaapo.data import DataError, Message

ALPACAEVAL2_FILE = "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"


def alpacaeval2_prompt(path: str = "") -> list[Message]:
    """AlpacaEval's classification prompt with {instruction}, {output_1} and {output_2}, as chat messages.

    Args:
        path: a ChatML file; alpaca_eval's own if empty.

    Raises:
        DataError: the file is missing, or is not ChatML with these three placeholders.
    """
    file = Path(path) if path else package_file("alpaca_eval", ALPACAEVAL2_FILE, "alpaca-eval")
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected AlpacaEval's judge prompt in ChatML")
    text = file.read_text(encoding="utf-8")
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", text, re.DOTALL)
    if not turns or not all(f"{{{name}}}" in text for name in ("instruction", "output_1", "output_2")):
        raise DataError(f"{file}: expected ChatML turns with {{instruction}}, {{output_1}} and {{output_2}}")
    return [{"role": role, "content": content.strip()} for role, content in turns]
