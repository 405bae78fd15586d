"""Unit tests of services.featurestore."""
