"""Scores, and quantiles of features."""
