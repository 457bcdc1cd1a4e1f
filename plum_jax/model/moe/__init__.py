"""Mixture of experts: who goes where (routing), how they get there (slots), and what happens there (experts)."""
