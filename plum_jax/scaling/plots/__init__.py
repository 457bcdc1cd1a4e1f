"""Figures of a scaling study, each a function of what was fitted before. Only here scaling imports matplotlib."""
