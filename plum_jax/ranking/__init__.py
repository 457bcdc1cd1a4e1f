"""Ranking by predicted clicks, likes, purchases: models of one label of an event, judged by AUC, GAUC and log loss."""
