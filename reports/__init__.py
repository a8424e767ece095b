"""Turn scores and run logs into verdicts, tables, figures, notebooks and one HTML page; only reads files."""
