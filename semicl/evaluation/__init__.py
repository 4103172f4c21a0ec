"""Metrics, prediction, figures."""
