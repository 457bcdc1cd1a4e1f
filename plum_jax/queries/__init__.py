"""Search queries: of a log with judgements, of category paths, of what users took; and their words."""
