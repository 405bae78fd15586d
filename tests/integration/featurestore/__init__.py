"""Tests of the feature store against real PostgreSQL and etcd."""
