"""Experiments: scenarios, faults, what is observed, and the verdict."""
