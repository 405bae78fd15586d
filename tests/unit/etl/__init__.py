"""Unit tests of services.etl."""
