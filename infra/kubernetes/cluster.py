"""The cluster as experiments need it: pods, logs and commands in containers, each refusal as one clear error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL
from websocket import WebSocketException

from infra.environment import EnvironmentFault

ANSWER_S: Final = 10.0
"""A healthy API server answers within milliseconds; a cluster that is just losing a node takes seconds."""
CUSTOM_METRICS: Final = "custom.metrics.k8s.io"
CUSTOM_METRICS_VERSIONS: Final = ("v1beta2", "v1beta1")
"""Those that the autoscaler takes."""
HANDSHAKE: Final = re.compile(r"Handshake status (\d{3})")


class ClusterRefuses(EnvironmentFault):
    """The cluster cannot be reached, does not know us, or does not allow it; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace of the cluster that one kubeconfig context names; never the ambient context."""

    context: str
    namespace: str
    api: client.ApiClient

    @classmethod
    def of(cls, context: str, namespace: str) -> Cluster:
        """Reads the kubeconfig and connects nowhere yet. ClusterRefuses when it has no such context."""
        if os.pathsep in os.environ.get("KUBECONFIG", ""):
            # of several, chaosk8s would read none
            raise ClusterRefuses("KUBECONFIG names several files: name the one that has the context")
        configuration: Any = client.Configuration()
        configuration.retries = False
        read: Any = config.load_kube_config
        try:
            read(context=context, client_configuration=configuration)
            return cls(context, namespace, client.ApiClient(configuration))
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            raise ClusterRefuses(
                f"the kubeconfig has no usable context {context} ({' '.join(str(error).split())}): set KUBECONFIG to "
                "the file that has it, or correct breakwater:kubernetes.context; no other context is ever used"
            ) from error

    @property
    def _core(self) -> Any:
        return client.CoreV1Api(self.api)

    # Reading

    def space(self) -> dict[str, Any] | None:
        """The namespace; None when the cluster has none of that name."""
        try:
            return self._object(f"read namespace {self.namespace}", self._core.read_namespace)
        except NotThere:
            return None

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return self._items("list pods", self._core.list_namespaced_pod, selector)

    def services(self, selector: str) -> list[dict[str, Any]]:
        return self._items("list services", self._core.list_namespaced_service, selector)

    def workloads(self, selector: str) -> list[dict[str, Any]]:
        """StatefulSets and Deployments."""
        apps: Any = client.AppsV1Api(self.api)
        return [
            *self._items("list statefulsets", apps.list_namespaced_stateful_set, selector),
            *self._items("list deployments", apps.list_namespaced_deployment, selector),
        ]

    def version(self) -> tuple[int, int]:
        ask: Any = client.VersionApi(self.api)
        with self.clear("ask for its release"):
            answer = ask.get_code(_preload_content=False, _request_timeout=ANSWER_S)
        found = json.loads(answer.data)
        # some clouds write 34+
        return int(found["major"]), int(re.sub(r"\D.*", "", found["minor"]))

    def storage_classes(self) -> list[dict[str, Any]]:
        ask: Any = client.StorageV1Api(self.api)
        with self.clear("list storage classes"):
            answer = ask.list_storage_class(_preload_content=False, _request_timeout=ANSWER_S)
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    def custom_metrics(self) -> bool:
        """Whether anybody answers for metrics of pods; ClusterRefuses when he is registered and away."""
        return any(self._answers(CUSTOM_METRICS, version) for version in CUSTOM_METRICS_VERSIONS)

    def _answers(self, group: str, version: str) -> bool:
        ask: Any = client.CustomObjectsApi(self.api)
        try:
            with self.clear(f"ask for {group}/{version}"):
                ask.get_api_resources(group, version, _preload_content=False, _request_timeout=ANSWER_S)
        except NotThere:
            return False
        return True

    def quotas(self) -> list[dict[str, Any]]:
        return self._items("list quotas", self._core.list_namespaced_resource_quota, "")

    def log(self, pod: str, container: str, *, previous: bool) -> str | None:
        """What a container has written, each line with its time (RFC 3339); None when there is nothing of it."""
        try:
            with self.clear(f"read the logs of {pod}"):
                answer = self._core.read_namespaced_pod_log(
                    pod,
                    self.namespace,
                    container=container,
                    previous=previous,
                    timestamps=True,
                    _preload_content=False,
                    _request_timeout=ANSWER_S,
                )
        except NotThere:
            return None
        return bytes(answer.data).decode(errors="replace")

    def may(self, verb: str, group: str, resource: str, name: str = "") -> bool:
        """Whether the caller may do that in the namespace, to one object or to any; `resource` as in `pods/exec`."""
        kind, _, part = resource.partition("/")
        attributes = {"namespace": self.namespace, "verb": verb, "group": group, "resource": kind, "subresource": part}
        attributes["name"] = self.namespace if kind == "namespaces" else name
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = {**review, "spec": {"resourceAttributes": attributes}}
        ask: Any = client.AuthorizationV1Api(self.api).create_self_subject_access_review
        with self.clear("ask for its own rights"):
            answer = ask(body, _preload_content=False, _request_timeout=ANSWER_S)
        return bool(json.loads(answer.data)["status"]["allowed"])

    # Acting

    def command(self, pod: str, container: str, command: Sequence[str]) -> Command:
        """Start a command in a container. ClusterRefuses when there is no such container, or it is not allowed."""
        # `stream` makes a websocket of every request of its client while it is called: this one's alone
        own = client.ApiClient(self.api.configuration)
        with self.clear(f"run a command in {pod}/{container}"):
            socket = stream(
                client.CoreV1Api(own).connect_get_namespaced_pod_exec,
                pod,
                self.namespace,
                container=container,
                command=list(command),
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
            )
        return Command(socket, f"{pod}/{container}")

    def _object(self, what: str, ask: Any) -> dict[str, Any]:
        with self.clear(what):
            answer = ask(self.namespace, _preload_content=False, _request_timeout=ANSWER_S)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    def _items(self, what: str, ask: Any, selector: str) -> list[dict[str, Any]]:
        with self.clear(what):
            answer = ask(self.namespace, label_selector=selector, _preload_content=False, _request_timeout=ANSWER_S)
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    @contextlib.contextmanager
    def clear(self, what: str) -> Iterator[None]:
        """Turns the client's errors into one line each."""
        try:
            yield
        except ApiException as error:
            raise self._refusal(what, error) from error
        except (urllib3.exceptions.HTTPError, WebSocketException, OSError) as error:
            raise self._silence(what, str(error)) from error

    def _silence(self, what: str, said: str) -> ClusterRefuses:
        return ClusterRefuses(
            f"the cluster of context {self.context} ({self.api.configuration.host}) does not answer, so it could not "
            f"{what}: {' '.join(said.split())[:300]}; is it up, and is this its kubeconfig?"
        )

    def _refusal(self, what: str, error: ApiException) -> EnvironmentFault:
        match _status(error):
            case 0:
                return self._silence(what, str(error.reason))
            case 404:
                return NotThere(f"{self.namespace} has nothing there: could not {what} ({_reason(error)})")
            case 401:
                return ClusterRefuses(
                    f"the cluster of context {self.context} does not know who asks (401): renew its credentials in the "
                    "kubeconfig"
                )
            case 403:
                return ClusterRefuses(
                    f"not allowed to {what} in {self.namespace} ({_reason(error)}): use the account experiment-runner, "
                    "which the program makes where chaos is enabled (docs/runbooks/staging.md)"
                )
        return ClusterRefuses(f"the cluster refused to {what} in {self.namespace}: {_status(error)} {_reason(error)}")


class NotThere(EnvironmentFault):
    """What was asked for does not exist in the namespace."""


class Command:
    """A command that runs in a container: lines to and from it, and how it ended."""

    def __init__(self, socket: Any, where: str) -> None:
        self._socket = socket
        self._where = where
        self._heard = ""

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, line: str) -> None:
        try:
            self._socket.write_stdin(f"{line}\n")
        except (WebSocketException, OSError) as error:
            raise EnvironmentFault(f"the command in {self._where} broke off: {error}") from error

    def hear(self, *, timeout_s: float) -> dict[str, Any]:
        """The next line, a JSON object; EnvironmentFault with what went wrong when none comes in time."""
        end = time.monotonic() + timeout_s
        try:
            # not the client's own readline: it forgets what came together with the end
            while "\n" not in self._heard:
                was_open = self._socket.is_open()
                said = self._socket.read_stdout(timeout=max(0.0, end - time.monotonic()) if was_open else 0)
                self._heard += said
                if not said and (not was_open or time.monotonic() > end):
                    raise EnvironmentFault(f"the command in {self._where} said nothing: {self._trouble()}")
        except (WebSocketException, OSError) as error:
            raise EnvironmentFault(f"the command in {self._where} broke off: {error}") from error
        line, _, self._heard = self._heard.partition("\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _trouble(self) -> str:
        if self._socket.is_open():
            return "not in time"
        said = self._socket.read_stderr(timeout=0) or self._socket.read_channel(ERROR_CHANNEL)
        return " ".join(str(said).split())[-300:] or "it ended at once"


def _status(error: ApiException) -> int:
    """The HTTP status; of a websocket that was not opened it stands in the words alone."""
    said = HANDSHAKE.search(str(error.reason))
    return int(said[1]) if said else int(error.status or 0)


def _reason(error: ApiException) -> str:
    """The API server's own message."""
    body: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError):
        body = json.loads(error.body or "")
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.reason or error.body).split())[:300]
