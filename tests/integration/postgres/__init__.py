"""Patroni, Postgres, etcd and wardens as real processes, under writes."""
