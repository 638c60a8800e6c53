"""Experiments on gradients and depth: ``python -m experiments --help``."""
