"""The etcd client against real etcd servers."""
