"""The local runtime: real servers as supervised processes on loopback."""
