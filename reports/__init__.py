"""From scores and run logs to verdicts, tables, figures, notebooks and one page; it only reads files."""
