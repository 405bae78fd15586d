"""CPU and memory as the kernel tells them, and a server's life."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.measured import BenchmarkError


def test_cpu_is_read_after_whatever_the_name_holds_with_that_of_ended_children() -> None:
    stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 7 3 20 0 4 0 100 1 1"
    assert processes.parse_cpu(stat) == 310


def test_memory_is_the_resident_set() -> None:
    assert processes.parse_memory("Name:\tx\nVmPeak:\t 9 kB\nVmRSS:\t 2048 kB\n") == 2048


def test_this_process_costs_something() -> None:
    assert processes.cpu_seconds(os.getpid()) > 0
    assert processes.memory_mb(os.getpid()) > 1


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(BenchmarkError, match="no such model"),
        processes.server("peer", command, 1, tmp_path, {}),
    ):
        pytest.fail("it never answered")
