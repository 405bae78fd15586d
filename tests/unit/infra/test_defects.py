"""The way back from a defect touches whoever still has it, and nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local import defects, rolling, servers
from infra.local.plan import LocalPlan, MemberPlan

SOUND = "".join(f'[program:api-{n}-api]\ncommand="python" "-m" "services.api"\n' for n in range(2))


class Platform:
    """What runs, and who was restarted or told to read its configuration again."""

    def __init__(self, plan: LocalPlan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = plan.state / "supervisord.conf"
        self.config.write_text(SOUND)
        self.touched: list[str] = []
        self.running: dict[str, tuple[str, ...]] = {}
        for member in (*plan.of("api"), *plan.of("edge"), *plan.of("postgres")):
            member.directory.mkdir(parents=True)
        monkeypatch.setattr(defects, "Supervisor", lambda _: SimpleNamespace(config=self.config))
        monkeypatch.setattr(
            defects, "LocalEnvironment", lambda _: SimpleNamespace(command_lines=lambda name: (self.running[name],))
        )
        monkeypatch.setattr(defects, "_restart", self.restart)
        monkeypatch.setattr(defects, "_restart_warden", lambda _, member: self.touched.append(member.name))
        monkeypatch.setattr(rolling, "reload_edge", lambda _, edge: self.touched.append(edge.name))
        for replica in plan.of("api"):
            self.restart(plan, replica)
        self.touched.clear()

    def restart(self, plan: LocalPlan, replica: MemberPlan) -> None:
        line = next(line for line in self.config.read_text().splitlines() if line.startswith("command="))
        self.running[replica.name] = tuple(word.strip('"') for word in line.partition("=")[2].split())
        self.touched.append(replica.name)


@pytest.fixture
def platform(plan: LocalPlan, monkeypatch: pytest.MonkeyPatch) -> Platform:
    return Platform(plan, monkeypatch)


def write(path: Path, **config: object) -> Path:
    path.write_text(json.dumps(config))
    return path


def test_replicas_run_with_a_defect_and_without_it_again(plan: LocalPlan, platform: Platform) -> None:
    assert defects.make_defective(plan, "slow-model") == ["api-0", "api-1"]
    assert platform.running["api-1"] == ("python", "-m", "infra.local.defective", "slow-model", "services.api")
    assert defects.make_sound(plan) == ["api-0", "api-1"]
    assert platform.running["api-0"] == ("python", "-m", "services.api")
    assert platform.config.read_text() == SOUND
    assert defects.make_sound(plan) == []


def test_a_way_back_that_was_cut_off_half_way_is_finished(plan: LocalPlan, platform: Platform) -> None:
    defects.make_defective(plan, "slow-model")
    platform.config.write_text(SOUND)
    platform.restart(plan, plan.member("api-0"))
    platform.touched.clear()
    assert defects.make_sound(plan) == ["api-1"]
    assert platform.touched == ["api-1"]


def test_only_watchdogs_with_another_limit_are_restarted(plan: LocalPlan, platform: Platform) -> None:
    limit = plan.topology.api.watchdog_ms
    write(plan.member("api-0").directory / "api.json", watchdog_ms=limit)
    changed = write(plan.member("api-1").directory / "api.json", watchdog_ms=limit * 4, replica="api-1")
    assert defects.watchdogs_on(plan) == ["api-1"]
    assert platform.touched == ["api-1"]
    assert json.loads(changed.read_text()) == {"watchdog_ms": limit, "replica": "api-1"}


def test_only_fences_that_are_off_are_put_on(plan: LocalPlan, platform: Platform) -> None:
    off, on = plan.of("postgres")[:2]
    assert defects.fences_on(plan) == []  # no member has a warden yet
    for member in (off, on):
        write(member.directory / "warden.json", ttl_s=plan.topology.postgres.patroni.ttl, member=member.name)
    assert defects.fences_off(plan) == [off.name, on.name]
    write(on.directory / "warden.json", ttl_s=plan.topology.postgres.patroni.ttl)
    platform.touched.clear()
    assert defects.fences_on(plan) == [off.name]
    assert platform.touched == [off.name]


def test_an_edge_is_as_the_topology_has_it_again(plan: LocalPlan, platform: Platform) -> None:
    edge = plan.member("edge-0")
    path = edge.directory / "haproxy.cfg"
    path.write_text(servers.edge_config(plan, edge))
    assert defects.edge_sound(plan) == []
    defects.edge_trusts(plan)
    assert "httpchk" not in path.read_text()
    assert defects.edge_sound(plan) == ["edge-0"]
    assert path.read_text() == servers.edge_config(plan, edge)
    assert platform.touched == ["edge-0", "edge-0"]
