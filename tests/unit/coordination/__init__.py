"""Unit tests of the etcd client: what is said to etcd and heard from it."""
