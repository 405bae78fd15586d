"""The first schema: entities, features and outcomes by month, slot ownership, batches and rejected rows."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = (
    """
    create table entities (
        entity_id  uuid primary key,
        created_at timestamptz not null default now(),
        segment    text not null
    )
    """,
    """
    create table batches (
        batch_id   bigint primary key,
        source     text not null,
        label      text not null,
        opened_at  timestamptz not null default now(),
        closed_at  timestamptz,
        rows       bigint not null,
        first_event_time timestamptz not null,
        last_event_time  timestamptz not null
    )
    """,
    """
    create table features (
        entity_id       uuid not null references entities,
        event_time      timestamptz not null,
        feature_vector  jsonb not null,
        batch_id        bigint,
        idempotency_key uuid not null,
        written_at      timestamptz not null default now(),
        primary key (entity_id, event_time)
    ) partition by range (event_time)
    """,
    "create index features_vector on features using gin (feature_vector jsonb_path_ops)",
    """
    create table outcomes (
        entity_id     uuid not null references entities,
        event_time    timestamptz not null,
        late          boolean not null,
        arr_delay_min real not null,
        batch_id      bigint not null,
        primary key (entity_id, event_time)
    ) partition by range (event_time)
    """,
    """
    create table owned_slots (
        slot       integer primary key check (slot between 0 and 1023),
        generation integer not null check (generation >= 1)
    )
    """,
    """
    create table rejected_rows (
        source   text not null,
        line     bigint not null,
        batch_id bigint not null,
        reason   text not null,
        row      jsonb not null,
        primary key (source, line)
    )
    """,
)

DOWNGRADE = "drop table rejected_rows, owned_slots, outcomes, features, batches, entities"


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute(DOWNGRADE)
