"""The `breakwater` command: a thin composition of infra, experiments and services."""
