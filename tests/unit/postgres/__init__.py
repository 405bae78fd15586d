"""Unit tests of the Postgres member: configuration, evidence from /proc, and the decisions of the warden."""
