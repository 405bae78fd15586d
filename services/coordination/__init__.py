"""The platform's agreement service: a client of etcd for everything that must be decided once."""
