"""Who enters an epoch with a JVM: of each node one agent, once, whatever becomes of its disk or of an answer."""

from __future__ import annotations

from services.coordination.etcd import Compare, EtcdClient, Put


def enter(client: EtcdClient, key: str, generation: int, incarnation: str) -> bool:
    """Whether no other incarnation of the node's agent entered this epoch before, which is noted now.

    etcd remembers it, since a pod that is replaced has lost its disk. The mark names who made it: an agent whose write
    arrived while the answer was lost asks again, and finds its own. EtcdError when etcd does not answer; the epoch is
    entered once it does.
    """
    mark = f"{generation} {incarnation}"
    known = client.get(key)
    if known is None or known.value.partition(" ")[0] != str(generation):
        unchanged = Compare(key, "mod_revision", 0 if known is None else known.mod_revision)
        client.transact([unchanged], [Put(key, mark)])
        known = client.get(key)
    return known is not None and known.value == mark
