"""What runs inside a Postgres member's pod when it is struck: sent there as text, so that no image carries a fault.

It uses the image's own knowledge of what belongs to the member (services.postgres), and the member's volume for `hold`.
"""

from __future__ import annotations

from typing import Final

STRIKE: Final = "strike"
"""The word that lets `kill` kill. Until it comes everything is prepared and nothing done, so that the moment of the
fault is known to the one who says it, on his own clock, to within one message."""

PROGRAM: Final = """
import contextlib, json, os, signal, sys, time
from pathlib import Path
from services.postgres.directory import MemberDirectory
from services.postgres.processes import member_processes

verb, root, *rest = sys.argv[1:]
directory = MemberDirectory(Path(root))


def say(**words):
    print(json.dumps(words), flush=True)


def name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def start_ticks(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" else int(fields[19])


def wardens():
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"services.postgres.warden" in (entry / "cmdline").read_bytes().split(b"\\0"):
                yield int(entry.name)
        except OSError:
            pass


def listed(pids):
    found = [(pid, start_ticks(pid), name(pid)) for pid in pids]
    return [entry for entry in found if entry[1] is not None]


def server():
    # Patroni last: its end is the end of its container, and of whatever else runs in there
    patroni = directory.read_patroni_identity()
    own = [each.pid for each in member_processes(directory)]
    return listed(sorted(own, key=lambda pid: patroni is not None and pid == patroni.pid))


def kill(processes):
    for pid, ticks, _ in processes:
        with contextlib.suppress(ProcessLookupError):
            if start_ticks(pid) == ticks:
                os.kill(pid, signal.SIGKILL)


if verb == "kill":
    whole, hold, patience = rest[0] == "member", rest[1] == "hold", float(rest[2])
    if not server():
        say(processes=[])
        sys.exit()
    if hold:
        directory.hold.touch(mode=0o600)
    say(ready=True)
    if sys.stdin.readline().strip() != "STRIKE":
        directory.hold.unlink(missing_ok=True)
        sys.exit("nobody struck")
    # the warden goes first when it has to go: it must not see its server die
    victims = (listed(wardens()) if whole else []) + server()
    say(processes=victims)
    kill(victims)
    end = time.monotonic() + patience
    while True:
        left = [victim for victim in victims if start_ticks(victim[0]) == victim[1]]
        # what was just being forked; without hold the next server is none of ours
        left += server() if hold else []
        if not left or time.monotonic() > end:
            break
        kill(left)
        time.sleep(0.01)
    say(left=len(left))
elif verb == "look":
    wanted = json.loads(rest[0])
    say(alive=sum(start_ticks(pid) == ticks for pid, ticks in wanted), processes=server(), held=directory.hold.exists())
elif verb == "release":
    directory.hold.unlink(missing_ok=True)
    say(held=directory.hold.exists())
elif verb == "events":
    # the end of the file: a run lasts minutes
    with directory.warden_events.open("rb") as log:
        log.seek(max(0, directory.warden_events.stat().st_size - int(rest[0])))
        say(text=log.read().decode(errors="replace"))
""".replace("STRIKE", STRIKE)
