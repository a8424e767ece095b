"""Exact answers for methods and losses: every distribution is small enough to be enumerated (docs/methods.md).

Nothing imports this package. `exact.py` and `answers.py` import none of the code that they are compared with.
"""
