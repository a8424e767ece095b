"""From scores and run logs to verdicts, tables, figures, notebooks and one page. Reads files only; never trains or judges."""
