"""The environment's secrets: which there are, where the program takes them from, and the Secret objects they become."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_kubernetes import core

from infra.kubernetes.names import CA, NAMESPACE, STACK_SECRETS, certificate, key
from infra.kubernetes.plan import KubernetesPlan, Workload
from infra.kubernetes.pods import metadata


class StackSecrets:
    """Every secret of the stack, as Pulumi secrets. A missing one ends the program before it registers anything."""

    def __init__(self) -> None:
        config = pulumi.Config(NAMESPACE)
        missing = [name for name in STACK_SECRETS if config.get_secret(name) is None]
        if missing:
            raise pulumi.RunError(
                f"the stack lacks {len(missing)} of its {len(STACK_SECRETS)} secrets: {', '.join(missing)}; make them "
                "with `breakwater secrets ENV --out DIR`, then set each: "
                "`pulumi config set --secret secrets:NAME < DIR/NAME`"
            )
        self._values = {name: config.require_secret(name) for name in STACK_SECRETS}

    def __getitem__(self, name: str) -> pulumi.Output[str]:
        return self._values[name]

    def tls(self, name: str) -> dict[str, pulumi.Input[str]]:
        """The files of one certificate holder, as a Secret's keys."""
        return {"ca.crt": self[CA], "tls.crt": self[certificate(name)], "tls.key": self[key(name)]}

    def client_tls(self) -> dict[str, pulumi.Input[str]]:
        """What a client of etcd and of every server needs: the authority, and a certificate to show."""
        return {"ca.crt": self[CA], "client.crt": self[certificate("client")], "client.key": self[key("client")]}

    def passfile(self, user: str, secret: str) -> pulumi.Output[str]:
        """libpq's passfile for one role on any shard."""
        return pulumi.Output.format("*:*:*:{0}:{1}\n", user, self[secret])


def secret_object(
    plan: KubernetesPlan,
    name: str,
    workload: Workload,
    opts: pulumi.ResourceOptions,
    *,
    text: Mapping[str, pulumi.Input[str]],
) -> core.v1.Secret:
    return core.v1.Secret(
        name,
        core.v1.SecretInitArgs(
            metadata=metadata(plan, name, workload),
            type="Opaque",
            string_data=dict(text),
        ),
        opts=opts,
    )
