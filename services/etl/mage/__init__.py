"""Mage: its project, its lock, and the server that starts it; nothing here runs in Breakwater's own environment."""
