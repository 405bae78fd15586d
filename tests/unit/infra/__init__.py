"""Topology, plan and rendered configuration: no servers."""
