"""Answer, judge and score the three benchmarks; import as `from eval import ...`: the name shadows a builtin."""
