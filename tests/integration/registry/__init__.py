"""Tests of loading and cutting data against real PostgreSQL."""
