"""What every case asserts: who acted, when writes went on, and that nothing acknowledged is lost."""

from tests.integration.postgres.shard_cluster import FENCE_MARGIN_S, TTL_S, Member, ShardCluster, wait_until
from tests.integration.postgres.writer import Writer

# With a warden the next write is acknowledged within half a second on an idle machine. The bound only has to show, on a
# busy one too, that it was not the ttl that decided; the promise of 2 s is judged by S-01. Seconds.
NOT_BY_THE_TTL_S = TTL_S / 2
# Patroni alone, on a busy machine: the ttl, its next loop, and the promotion. Seconds.
PATRONI_ALONE_S = 2 * TTL_S
# A write that began this long after a kill can only be acknowledged by whoever leads next, nanoseconds.
SETTLED_NS = 100_000_000
# Silence of Patroni that its lease allows, seconds.
FENCE_AFTER_S = float(TTL_S - FENCE_MARGIN_S)
# How long "nothing happens" is watched, seconds: a release takes well under a tenth of a second.
NOTHING_FOR_S = 2.0
DID_SOMETHING = {"fence_started", "fenced", "gone", "released"}


def acted(member: Member, since_ns: int) -> list[str]:
    """What the member's wardens did since then, leaving out what they only saw or refused."""
    return [event.kind for event in member.events(since_ns=since_ns) if event.kind in DID_SOMETHING]


def assert_writes_go_on(writer: Writer, after_ns: int, *, within_s: float = NOT_BY_THE_TTL_S) -> None:
    first = wait_until("an acknowledged write", lambda: writer.first_after(after_ns), within_s + 5, poll_s=0.005)
    took_s = (first.end_ns - after_ns) / 1e9
    assert took_s < within_s, f"the next acknowledged write came after {took_s:.2f} s"


def assert_nothing_lost(shard: ShardCluster, writer: Writer) -> None:
    with shard.connect(shard.primary()) as connection:
        found = {row for (row,) in connection.execute("select id from written")}
    lost = [each.row for each in writer.acknowledged if each.row not in found]
    assert writer.acknowledged
    assert not lost, f"{len(lost)} of {len(writer.acknowledged)} acknowledged rows lost: {lost[:10]}, see {shard.root}"
