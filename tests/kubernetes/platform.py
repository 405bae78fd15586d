"""The rendered platform on a real cluster, by kubectl alone: applied, waited for, asked and talked to."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from infra.kubernetes.edge import HTTPS
from infra.kubernetes.plan import PYTHON, KubernetesPlan
from infra.kubernetes.render import manifests
from infra.kubernetes.stack_secrets import ensure

Manifest = dict[str, Any]
COMPONENT: Final = "app.kubernetes.io/component"
MANAGER: Final = "breakwater-tests"
REFERENCE: Final = re.compile(r"\$\{secrets:(\w+)\}")
COMMAND_S: Final = 600
CALM_S: Final = 15
"""Instead of the five minutes that production waits before it scales down, which the rendering's test holds."""
SERVERS: Final = ("statefulset/etcd", "deployment/redis")


class KubectlFailed(Exception):
    """kubectl said no; the message is what it said."""


@dataclass(frozen=True)
class Platform:
    """One environment in one cluster. Every command names the context: never the ambient one."""

    plan: KubernetesPlan
    secrets: Path

    def with_topology(self, **changes: BaseModel) -> Platform:
        """The same environment with sections of its topology replaced."""
        return replace(self, plan=KubernetesPlan(self.plan.topology.model_copy(update=changes)))

    def kubectl(self, *arguments: str, stdin: str | None = None, codes: tuple[int, ...] = (0,)) -> str:
        command = ["kubectl", "--context", self.plan.settings.context, "--namespace", self.plan.namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode not in codes:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, *options: str) -> list[Manifest]:
        items: list[Manifest] = json.loads(self.kubectl("get", kind, *options, "-o", "json"))["items"]
        return items

    def pods(self, component: str) -> list[Manifest]:
        return self.get("pods", "-l", f"{COMPONENT}={component}")

    # Bringing it up

    def objects(self) -> list[Manifest]:
        """What is applied: the rendering with its secrets."""
        ensure(self.plan, self.secrets)
        filled: list[Manifest] = _filled(list(manifests(self.plan)), self.secrets)
        return filled

    def apply(self, objects: list[Manifest]) -> None:
        self._apply_with("apply", objects)

    def difference(self, objects: list[Manifest]) -> str:
        """What applying again would change; empty when nothing."""
        return self._apply_with("diff", objects, codes=(0, 1))

    def _apply_with(self, verb: str, objects: list[Manifest], codes: tuple[int, ...] = (0,)) -> str:
        listing = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        return self.kubectl(verb, "--server-side", "--field-manager", MANAGER, "-f", "-", stdin=listing, codes=codes)

    def install(self) -> None:
        """Everything in the order in which the program makes it: servers, then what fills them, then who uses them."""
        objects = self.objects()
        jobs = {made["metadata"]["name"]: made for made in objects if made["kind"] == "Job"}
        self.apply([made for made in objects if made["kind"] != "Job"])
        for server in (*SERVERS, *(f"statefulset/shard-{shard}" for shard in self.plan.shards)):
            self.rolled_out(server)
        for name in ("migrate", "load"):
            self.run(jobs[name])

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """While it lasts the autoscaler takes replicas away after CALM_S of calm."""
        (scaler,) = [made for made in self.objects() if made["kind"] == "HorizontalPodAutoscaler"]
        self._take_away_after(CALM_S)
        try:
            yield
        finally:
            self._take_away_after(scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"])

    def _take_away_after(self, seconds: int) -> None:
        path = "/spec/behavior/scaleDown/stabilizationWindowSeconds"
        change = f'[{{"op": "replace", "path": "{path}", "value": {seconds}}}]'
        self.kubectl("patch", "hpa", "api", "--type=json", "-p", change)

    def run(self, job: Manifest) -> None:
        """Run a Job to its end, anew where it ran before: its template is immutable, so Pulumi deletes it first too."""
        name = job["metadata"]["name"]
        self.kubectl("delete", "job", name, "--ignore-not-found", "--cascade=foreground")
        self.apply([job])
        self.complete(name)

    def rolled_out(self, workload: str, *, timeout_s: int = 300) -> None:
        self.kubectl("rollout", "status", workload, f"--timeout={timeout_s}s")

    def complete(self, job: str, *, timeout_s: int = 600) -> None:
        self.kubectl("wait", "--for=condition=complete", f"job/{job}", f"--timeout={timeout_s}s")

    # Talking to it

    def python(self, component: str, program: str, stdin: str = "") -> str:
        """Run a program in a pod of the component, a ready one where there is one, with what that pod can reach."""
        standing = [pod for pod in self.pods(component) if not leaves(pod)]
        name = min(standing, key=lambda pod: not ready(pod))["metadata"]["name"]
        return self.kubectl("exec", "-i", name, "-c", component, "--", PYTHON, "-c", program, stdin=stdin)

    @contextlib.contextmanager
    def edge(self) -> Iterator[str]:
        """Where the edge's service answers: at its own address where that can be reached, else through kubectl.

        The address needs no pod to be alive: what a lost one costs its clients is seen as they see it.
        """
        (service,) = self.get("services", "--field-selector", "metadata.name=edge")
        address = service["spec"]["clusterIP"]
        if _answers(address, HTTPS):
            yield f"https://{address}"
            return
        command = ["kubectl", "--context", self.plan.settings.context, "--namespace", self.plan.namespace]
        forward = subprocess.Popen(
            [*command, "port-forward", "service/edge", ":443", "--address", "127.0.0.1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found, "kubectl port-forward said no port"
            yield f"https://localhost:{found[1]}"
        finally:
            forward.terminate()
            forward.wait(timeout=10)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.secrets / "tls_ca_crt"))

    def token(self) -> str:
        return (self.secrets / "api_token").read_text().strip()

    def primary(self, shard: int) -> str | None:
        """The member whose Patroni says that it leads, as the members say it themselves."""
        leader = self._leader(shard)
        return None if leader is None else str(leader["name"])

    def timeline(self, shard: int) -> int | None:
        """The primary's: one more with each promotion."""
        leader = self._leader(shard)
        return None if leader is None else int(leader["timeline"])

    def _leader(self, shard: int) -> dict[str, Any] | None:
        ask = (
            "import json, ssl, urllib.request as r\n"
            "plain = ssl._create_unverified_context()\n"
            "print(r.urlopen('https://127.0.0.1:8008/cluster', context=plain, timeout=3).read().decode())"
        )
        for pod in self.get("pods", "-l", f"breakwater.dev/shard={shard}"):
            with contextlib.suppress(KubectlFailed):
                said = self.kubectl("exec", pod["metadata"]["name"], "-c", "server", "--", PYTHON, "-c", ask)
                for member in json.loads(said)["members"]:
                    if member["role"] == "leader" and member["state"] == "running":
                        return dict(member)
        return None

    def node_of(self, pod: str) -> str:
        (found,) = self.get("pods", "--field-selector", f"metadata.name={pod}")
        return str(found["spec"]["nodeName"])

    def healthy(self) -> None:
        """Everything is rolled out and ready, H2O's nodes in consensus; not the API, which needs a model first."""
        for kind in ("statefulset", "deployment"):
            for made in self.get(kind):
                if made["metadata"]["name"] not in {"h2o", "api"}:
                    self.rolled_out(f"{kind}/{made['metadata']['name']}")
        # all of its nodes are replaced together, so that there is no rollout to follow
        nodes = self.plan.topology.h2o.nodes
        eventually("H2O's nodes agree", 240, lambda: len([pod for pod in self.pods("h2o") if ready(pod)]) == nodes)

    def identities(self) -> dict[str, Any]:
        """What changes when something is changed: generations, specs of what has none, and the UID of every pod."""
        found: dict[str, Any] = {}
        for kind in ("statefulsets", "deployments", "jobs", "networkpolicies", "horizontalpodautoscalers"):
            found |= {
                f"{kind}/{each['metadata']['name']}": each["metadata"].get("generation", each["spec"])
                for each in self.get(kind)
            }
        return found | {f"pods/{each['metadata']['name']}": each["metadata"]["uid"] for each in self.get("pods")}


def ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def leaves(pod: Mapping[str, Any]) -> bool:
    """Told to end, and still there."""
    return "deletionTimestamp" in pod["metadata"]


def eventually(what: str, seconds: float, look: Any) -> Any:
    """The first true value of `look()`; AssertionError when time is up."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.5)
    return found


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def _filled(value: Any, secrets: Path) -> Any:
    match value:
        case str():
            return REFERENCE.sub(lambda found: (secrets / found[1]).read_text(), value)
        case dict():
            return {key: _filled(item, secrets) for key, item in value.items()}
        case list():
            return [_filled(item, secrets) for item in value]
    return value
