"""Arena-Hard's verdicts: five labels from "A>>B" to "B>>A", as the scorers of 2024 and of 2025 read them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from metaapo.data import DataError

VERSIONS = ("v0.1-2024", "v2.0-2025")
# label -> battles that A (loses, ties, wins); ">>" counts three times
_LABELS_2024 = {"A>>B": (0, 0, 3), "A>B": (0, 0, 1), "A=B": (0, 1, 0), "B>A": (1, 0, 0), "B>>A": (3, 0, 0)}
_LABELS_MIRRORED = {"B<<A": (0, 0, 3), "B<A": (0, 0, 1), "B=A": (0, 1, 0), "A<B": (1, 0, 0), "A<<B": (3, 0, 0)}
LABELS = {"v0.1-2024": _LABELS_2024, "v2.0-2025": _LABELS_2024 | _LABELS_MIRRORED}
_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")


def parse_verdict(text: str, version: str) -> str | None:
    """The verdict in a judge's answer, such as "A>>B"; None if there is none, if it is not a valid label, or (2024) if
    labels conflict.

    >>> parse_verdict("[[A>B]] ... no: [[A=B]]", "v0.1-2024"), parse_verdict("[[A>B]] ... no: [[a=b]]", "v2.0-2025")
    (None, 'A=B')

    Raises:
        DataError: unknown version.
    """
    known = labels(version)
    if version == "v0.1-2024":
        found = set(_DOUBLE.findall(text))
        label = found.pop() if len(found) == 1 else None
    else:
        matches = _DOUBLE.findall(text.upper()) or _SINGLE.findall(text.upper())
        label = matches[-1] if matches else None
    return label if label in known else None


def wants_retry(text: str, version: str) -> bool:
    """Whether the protocol asks the judge once more: in 2024 if its answer has no label at all, in 2025 never."""
    return version == "v0.1-2024" and not _DOUBLE.search(text)


def labels(version: str) -> Mapping[str, tuple[int, int, int]]:
    """Label -> battles that A (loses, ties, wins).

    Raises:
        DataError: unknown version.
    """
    if version not in LABELS:
        raise DataError(f"Arena-Hard version {version!r} is unknown; use one of {', '.join(VERSIONS)}")
    return LABELS[version]
