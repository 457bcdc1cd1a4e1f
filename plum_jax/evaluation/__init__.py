"""How whatever ranks items is judged: metrics, each user's ranks, files."""
