"""The process's one JVM, started once with the genmodel runtime and fixed memory, and never restarted."""

from __future__ import annotations

from pathlib import Path

import jpype

from services.api.scoring.errors import RuntimeUnavailable


def heap_used_bytes() -> float:
    """What models, and garbage since the last collection, take of the heap. Needs the JVM."""
    runtime = jpype.JClass("java.lang.Runtime").getRuntime()
    return float(runtime.totalMemory() - runtime.freeMemory())


def start_jvm(genmodel_jar: Path, heap_mb: int) -> None:
    """Start the JVM unless it runs; blocks for 0.1 to 0.3 s. Call it on the main thread only.

    The thread that starts a JVM is one that its end waits for: from a pool's thread, the process would never exit.
    -Xrs, because a JVM that handles signals ends the process on SIGTERM before Python hears of it. The serial
    collector needs no threads of its own, and its pauses on this small heap are under a millisecond.
    """
    if jpype.isJVMStarted():
        return
    if not genmodel_jar.is_file():
        raise RuntimeUnavailable(f"{genmodel_jar} does not exist: extract the genmodel runtime there")
    try:
        jpype.startJVM(
            "-Xrs",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            classpath=[str(genmodel_jar)],
            convertStrings=False,
        )
    except (jpype.JVMNotFoundException, OSError, RuntimeError) as error:
        raise RuntimeUnavailable(f"no JVM could be started ({error}): install a Java runtime, 17 or later") from error
