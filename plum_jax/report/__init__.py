"""Pages about a run: tables, charts, style."""
