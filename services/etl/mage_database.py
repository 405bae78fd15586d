"""How Mage reaches its own database: every member of the shard, the primary wanted, no password in the URL."""

from __future__ import annotations

from urllib.parse import urlencode

from services.contracts.shards import CONNECT_TIMEOUT_S, KEEPALIVE, ShardEndpoints


def database_url(database: ShardEndpoints) -> str:
    """SQLAlchemy's form for psycopg2, which hands the query to libpq; Mage itself wants the colon of a password."""
    query = [("host", f"{entry.host}:{entry.port}") for entry in database.hosts]
    query += [
        ("target_session_attrs", "read-write"),
        ("passfile", str(database.passfile)),
        ("connect_timeout", str(CONNECT_TIMEOUT_S)),
        ("application_name", "mage"),
        *KEEPALIVE.items(),
    ]
    if database.root_certificate is not None:
        query += [("sslmode", "verify-full"), ("sslrootcert", str(database.root_certificate))]
    return f"postgresql+psycopg2://{database.user}:@/{database.dbname}?{urlencode(query, safe='/:')}"
