"""Answer, judge and score the three benchmarks; import with `from eval import ...`, since `eval` is a builtin."""
