"""The behaviour trunk on mixed numeric and categorical event fields: payments, one dense vector each, and their
frauds.
"""
