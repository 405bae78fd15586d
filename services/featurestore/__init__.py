"""The feature store: entities and feature vectors over PostgreSQL shards, their schema, routing and acknowledgement."""
