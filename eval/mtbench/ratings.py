"""Parse MT-Bench's grades from a judge's reply, as FastChat does."""

from __future__ import annotations

import re

UNPARSED = -1
LOWEST_GRADE, HIGHEST_GRADE = 1, 10
LONGEST_GRADE = 100  # characters; anything longer is not a grade, and Python refuses to convert 5,000 digits


def parse_rating(text: str) -> int | float | None:
    """The grade in a judge's answer: the first [[number]], else the first [number], else None.

    The range is not checked, as upstream; `score` counts grades outside 1 to 10.

    >>> parse_rating("Good, but short. Rating: [[7]]"), parse_rating("[6.5]"), parse_rating("seven")
    (7, 6.5, None)
    """
    match = re.search(r"\[\[(\d+\.?\d*)\]\]", text) or re.search(r"\[(\d+\.?\d*)\]", text)
    if match is None:
        return None
    number = match[1]
    if len(number) > LONGEST_GRADE:
        return None
    return float(number) if "." in number else int(number)


def parse_grade(text: str) -> int | float | None:
    """The grade in a judge's answer; None if there is none from 1 to 10.

    >>> parse_grade("Rating: [[10]]"), parse_grade("Rating: [[95]]")
    (10, None)
    """
    rating = parse_rating(text)
    return rating if rating is not None and LOWEST_GRADE <= rating <= HIGHEST_GRADE else None
