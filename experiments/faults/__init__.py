"""Chaos Toolkit actions: each keeps its own deadline, says what it did as an event, and leaves a record on disk."""
