"""Scaling laws: fits, intervals, forecasts and plots of any table of runs, in float64; knows no trainer."""
