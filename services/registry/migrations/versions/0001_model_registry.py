"""The model registry: models, runs, versions with a stage, artifacts, metrics, and an audit nobody can bypass."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = (
    "create schema model_registry",
    "create table model_registry.stages (stage text primary key)",
    "insert into model_registry.stages values ('registered'), ('staging'), ('production'), ('archived')",
    """
    create table model_registry.legal_transitions (
        from_stage text not null references model_registry.stages,
        to_stage   text not null references model_registry.stages,
        primary key (from_stage, to_stage)
    )
    """,
    # back to production from the archive is a rollback
    """
    insert into model_registry.legal_transitions values
        ('registered', 'staging'), ('staging', 'production'), ('production', 'archived'), ('archived', 'production')
    """,
    """
    create table model_registry.models (
        model      text primary key,
        generation bigint not null default 0 check (generation >= 0),
        created_at timestamptz not null default now()
    )
    """,
    """
    create table model_registry.training_runs (
        run_id      uuid primary key,
        model       text not null references model_registry.models,
        trainer     text not null,
        seed        bigint not null,
        train_start timestamptz not null,
        train_end   timestamptz not null,
        test_start  timestamptz not null,
        test_end    timestamptz not null,
        train_rows  bigint not null check (train_rows > 0),
        test_rows   bigint not null check (test_rows > 0),
        recorded_at timestamptz not null default now(),
        unique (run_id, model),
        check (train_start <= train_end and train_end < test_start and test_start <= test_end)
    )
    """,
    """
    create table model_registry.metrics (
        run_id uuid not null references model_registry.training_runs,
        metric text not null,
        value  double precision not null,
        primary key (run_id, metric)
    )
    """,
    """
    create table model_registry.versions (
        model         text not null references model_registry.models,
        version       text not null,
        run_id        uuid not null unique,
        manifest      char(64) not null check (manifest ~ '^[0-9a-f]{64}$'),
        stage         text not null default 'registered' references model_registry.stages,
        registered_at timestamptz not null default now(),
        primary key (model, version),
        foreign key (run_id, model) references model_registry.training_runs (run_id, model)
    )
    """,
    "create unique index one_production on model_registry.versions (model) where stage = 'production'",
    """
    create table model_registry.artifacts (
        model   text not null,
        version text not null,
        kind    text not null check (kind in ('mojo', 'card', 'golden', 'contract')),
        sha256  char(64) not null check (sha256 ~ '^[0-9a-f]{64}$'),
        bytes   bigint not null check (bytes > 0),
        primary key (model, version, kind),
        foreign key (model, version) references model_registry.versions
    )
    """,
    """
    create table model_registry.transitions (
        id         bigint generated always as identity primary key,
        model      text not null,
        version    text not null,
        from_stage text,
        to_stage   text not null,
        actor      text not null check (actor <> ''),
        reason     text not null check (reason <> ''),
        at         timestamptz not null default clock_timestamp(),
        foreign key (model, version) references model_registry.versions,
        constraint legal_transition foreign key (from_stage, to_stage)
            references model_registry.legal_transitions,
        constraint begins_registered check (from_stage is not null or to_stage = 'registered')
    )
    """,
    # Whoever changes a stage leaves a line here, or does not change it: also by hand.
    """
    create function model_registry.audit_stage() returns trigger language plpgsql as $$
    begin
        if tg_op = 'UPDATE' and old.stage = new.stage then
            return new;
        end if;
        insert into model_registry.transitions (model, version, from_stage, to_stage, actor, reason)
        values (
            new.model, new.version, case when tg_op = 'UPDATE' then old.stage end, new.stage,
            coalesce(current_setting('breakwater.actor', true), ''),
            coalesce(current_setting('breakwater.reason', true), '')
        );
        return new;
    end
    $$
    """,
    """
    create trigger audit_stage after insert or update of stage on model_registry.versions
    for each row execute function model_registry.audit_stage()
    """,
    """
    create function model_registry.only_grows() returns trigger language plpgsql as $$
    begin
        if new.generation < old.generation then
            raise exception 'the generation of % only grows: % < %', old.model, new.generation, old.generation;
        end if;
        return new;
    end
    $$
    """,
    """
    create trigger only_grows before update on model_registry.models
    for each row execute function model_registry.only_grows()
    """,
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("drop schema model_registry cascade")
