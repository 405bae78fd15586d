"""A Postgres member: how Patroni is configured and launched, and the warden that stands beside it."""
