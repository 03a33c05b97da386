"""Memory and processors as a pod has them: the kernel's tables are read if they are stricter than the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune_stages.training.machine import available_memory, free_room, killed_for_memory, peak_memory, processors, readable

GIB = 1 << 30


@pytest.fixture
def kernel(tmp_path: Path) -> tuple[Path, Path]:
    """Control groups and /proc of a pod: 4 GiB of which 1 GiB is used and half of that can be given back, 2.5 processors."""
    cgroups, proc = tmp_path / "cgroup", tmp_path / "proc"
    group = cgroups / "kubepods" / "pod"
    group.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/kubepods/pod\n")
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {16 * GIB // 1024} kB\n")
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group / "memory.current").write_text(f"{GIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {GIB // 2}\n")
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (group / "cpu.max").write_text("250000 100000\n")
    return cgroups, proc


def test_the_pods_limit_counts_less_what_it_uses(kernel):
    assert available_memory(*kernel) == 4 * GIB - GIB // 2


def test_the_machine_counts_where_it_has_less(kernel):
    _, proc = kernel
    (proc / "meminfo").write_text("MemAvailable: 1024 kB\n")
    assert available_memory(*kernel) == 1024 * 1024


def test_no_limit_is_no_number(kernel):
    cgroups, _ = kernel
    (cgroups / "kubepods" / "pod" / "memory.max").write_text("max\n")
    assert available_memory(*kernel) == 16 * GIB


def test_the_limit_of_a_group_around_counts(kernel):
    cgroups, _ = kernel
    (cgroups / "kubepods" / "memory.max").write_text(f"{2 * GIB}\n")
    (cgroups / "kubepods" / "memory.current").write_text("0\n")
    assert available_memory(*kernel) == 2 * GIB


def test_a_name_that_leads_out_of_the_container(kernel):
    cgroups, proc = kernel
    (proc / "self" / "cgroup").write_text("0::/../../elsewhere\n")
    for name in ("memory.max", "memory.current"):
        (cgroups / name).write_text(f"{GIB}\n")
    assert available_memory(*kernel) == 0


def test_unknown_memory_gives_no_message(tmp_path):
    assert available_memory(tmp_path, tmp_path) is None
    assert killed_for_memory(tmp_path, tmp_path) == 0


def test_processors_are_rounded_to_whole_ones(kernel):
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert processors(*kernel) == min(2, allowed or 1)


def test_the_kernels_kills_are_counted(kernel):
    assert killed_for_memory(*kernel) == 2


def test_this_machine_answers(tmp_path):
    assert free_room(tmp_path) > 0
    assert peak_memory() > 1 << 20
    assert processors() >= 1


@pytest.mark.parametrize(("number", "text"), [(512, "512 B"), (2048, "2 KiB"), (3 << 20, "3 MiB"), (5 * GIB // 2, "2.5 GiB")])
def test_bytes_for_people(number, text):
    assert readable(number) == text
