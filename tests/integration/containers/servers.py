"""PostgreSQL and Redis in containers, by Testcontainers, with the interface of the servers that other tests start."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testcontainers.core.container import DockerContainer

from tests.integration.api.redis_server import RedisServer
from tests.integration.featurestore.servers import SETTINGS, Postgres

POSTGRES_IMAGE: Final = os.environ.get("BREAKWATER_TEST_POSTGRES_IMAGE", "localhost/breakwater/postgres:0.1.0")
REDIS_IMAGE: Final = os.environ.get("BREAKWATER_TEST_REDIS_IMAGE", "localhost/breakwater/redis:0.1.0")
LOOPBACK: Final = "127.0.0.1"
LIFE_S: Final = 1800
"""A container ends by itself: a test run that is killed leaves none for longer, whether or not Ryuk is there."""

# Entry points differ from image to image, so none is relied on: an image needs only the programs, and a user for them.
START_POSTGRES: Final = """
set -eu
umask 077
for place in /usr/local/bin /usr/lib/postgresql/*/bin; do PATH="$place:$PATH"; done
printf %s "$PASSWORD" >/tmp/password
initdb --auth scram-sha-256 --username postgres --no-sync --encoding UTF8 --pwfile /tmp/password -D /tmp/data >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
unset PASSWORD
exec timeout -s KILL "$LIFE_S" postgres -D /tmp/data "$@"
"""
START_REDIS: Final = """
exec timeout -s KILL "$LIFE_S" redis-server - <<END
bind 0.0.0.0
requirepass $PASSWORD
save ""
appendonly no
dir /tmp
END
"""


class ContainerPostgres(Postgres):
    """A server of POSTGRES_IMAGE with a published loopback port. It cannot be killed and followed, only destroyed."""

    def __init__(self, home: Path, name: str, password: str) -> None:
        super().__init__(home, name, password)
        settings = SETTINGS | {"listen_addresses": "*"}
        arguments = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._container = _container(POSTGRES_IMAGE, START_POSTGRES, arguments, password, (5432, self.port))
        client = self._container.get_docker_client().client
        if client.images.get(POSTGRES_IMAGE).attrs["Config"]["User"] in {"", "root", "0"}:
            self._container.with_kwargs(**{**LIKE_A_POD, "user": "postgres"})

    @classmethod
    def create(cls, name: str) -> ContainerPostgres:
        server = cls(Path(tempfile.mkdtemp(prefix="breakwater-postgres-")), name, secrets.token_hex(16))
        server._secret(server.passfile, f"*:*:*:*:{server.password}\n", own=True)
        server._container.start()
        server.wait_ready()
        server.make_role()
        return server

    def destroy(self) -> None:
        self._container.stop()
        super().destroy()


class ContainerRedis(RedisServer):
    """A server of REDIS_IMAGE with a published loopback port, which stays the same when it starts again."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        password = self.password_file.read_text()
        self._container = _container(REDIS_IMAGE, START_REDIS, [], password, (6379, self.port))
        self._made = False

    def start(self) -> None:
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        self.wait_ready()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def freeze(self) -> None:
        self._container.get_wrapped_container().pause()

    def thaw(self) -> None:
        self._container.get_wrapped_container().unpause()

    def close(self) -> None:
        self.client.close()
        self._container.stop()


LIKE_A_POD: Final = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


def _container(
    image: str, program: str, arguments: Sequence[str], password: str, port: tuple[int, int]
) -> DockerContainer:
    """`port` is the server's own, and the one of this machine's loopback under which it is reached."""
    made = DockerContainer(image).with_command(["/bin/sh", "-c", program, "start", *arguments])
    made.with_envs(PASSWORD=password, LIFE_S=str(LIFE_S)).with_tmpfs_mount("/tmp")  # noqa: S108 - the container's
    made.ports[f"{port[0]}/tcp"] = (LOOPBACK, port[1])  # type: ignore[assignment] # docker takes an address too
    return made.with_kwargs(**LIKE_A_POD)
