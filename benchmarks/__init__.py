"""How fast it is: a worker beside its peers, the stack behind its edge, what a request costs. `make bench`."""
