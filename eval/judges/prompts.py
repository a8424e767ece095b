"""Fill the placeholders of upstream's prompt templates with questions and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each {name} by its value; all other braces, including those inside values, are unchanged."""
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda match: values[match[1]], template)
