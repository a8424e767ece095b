"""Policies and reward models: loading, log-probabilities, sampling."""
