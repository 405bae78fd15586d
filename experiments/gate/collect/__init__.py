"""Collectors of the gate's facts: each touches one part of the world, and says Missing where it cannot see it."""
