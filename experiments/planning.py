"""From a running environment to a load plan: where everything answers, which flights to ask for, who owns what."""

from __future__ import annotations

import contextlib
import datetime
import time
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from experiments.errors import ExperimentError, fields
from experiments.evidence import EVENTS_FILE
from experiments.history import PARTS_DIR
from experiments.probes.samples import write_samples
from infra.environment import Environment
from infra.topology import Topology
from loadtests.arrivals import NS_PER_S
from loadtests.plan import Deadlines, LoadPlan, Rates
from loadtests.profiles import ProfileName
from services.contracts.slots import SlotMap, slots_key
from services.coordination.etcd import EtcdError

LEAD_S: Final = 4
"""Load processes need this long to start, connect and wait for the common start."""
DEADLINES: Final = Deadlines(predict=1000, write=1000, read=1000)
LOADED_BEFORE: Final = "2015-01-01"
"""The flights are of 2013; what a run writes itself is of today."""
PLAN_FILE: Final = "load.json"


class PreflightFailed(ExperimentError):
    """The run was not begun; the message says what is missing and how to get it."""


def slot_map_of(environment: Environment, name: str) -> SlotMap:
    """The slot map in force; PreflightFailed without one."""
    with contextlib.closing(environment.etcd().client()) as etcd:
        try:
            found = etcd.get(slots_key(name))
        except EtcdError as error:
            raise PreflightFailed(f"etcd does not answer ({error}); nothing was done") from error
    if found is None:
        raise PreflightFailed(f"{name} has no slot map; run `breakwater up {name}`")
    try:
        return SlotMap.model_validate_json(found.value)
    except ValidationError as error:
        raise PreflightFailed(f"the slot map in etcd is malformed: {fields(error)}; nothing was done") from error


def demand_leave(topology: Topology, name: str) -> None:
    """PreflightFailed where no experiments may act: load writes rows, and can be more than the platform bears."""
    if not topology.chaos.enabled:
        raise PreflightFailed(
            f"{name} allows no experiments, and load is one: set breakwater:chaos enabled: true in Pulumi.{name}.yaml; "
            "nothing was done"
        )


def demand_model(environment: Environment, name: str) -> None:
    """PreflightFailed when a replica serves no model."""
    for member in environment.members("api"):
        if (obstacle := environment.obstacle(member.name)) is not None:
            raise PreflightFailed(
                f"{member.name} serves no model ({obstacle}); run `breakwater train {name}`; nothing was done"
            )


def write_plan(
    environment: Environment,
    slot_map: SlotMap,
    directory: Path,
    *,
    name: str,
    run_tag: int,
    seed: int,
    rates: Rates,
    lasts_s: float,
    flights_per_shard: int,
    lead_s: int = LEAD_S,
    profile: ProfileName = "normal",
    write_deadline_ms: int = DEADLINES.write,
    repeat_writes: bool = False,
) -> Path:
    """Write a plan, and beside it the flights that it asks for; it starts `lead_s` from now. The plan's path."""
    endpoints = environment.endpoints()
    edge = endpoints.edge
    samples = directory / "samples.jsonl"
    write_samples(environment.shards(), samples, seed=seed, loaded_before=LOADED_BEFORE, per_shard=flights_per_shard)
    start_ns = time.monotonic_ns() + lead_s * NS_PER_S
    now = datetime.datetime.now(datetime.UTC)
    plan = LoadPlan(
        environment=name,
        edge_url=edge.url,
        edge_name=edge.name,
        ca_file=edge.ca_file,
        token_file=environment.token_file(),
        etcd=environment.etcd(),
        addresses=endpoints.addresses,
        shards=environment.shards(),
        members=tuple(member.name for member in environment.members()),
        slot_map=slot_map,
        samples_file=samples,
        run_tag=run_tag,
        seed=seed,
        rates=rates,
        profile=profile,
        deadlines_ms=DEADLINES.model_copy(update={"write": write_deadline_ms}),
        repeat_writes=repeat_writes,
        write_event_time=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
        start_ns=start_ns,
        end_ns=start_ns + int(lasts_s * NS_PER_S),
        stop_file=directory / "stop",
        out_dir=directory / PARTS_DIR,
        event_log=directory / EVENTS_FILE,
    )
    path = directory / PLAN_FILE
    path.write_text(plan.model_dump_json(by_alias=True, indent=2))
    return path
