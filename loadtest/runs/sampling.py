"""What a run costs: processor and memory of the processes, and what the nodes say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import trio

from loadtest.runs.timeline import Timeline

SAMPLE_S = 1.0
PAGE_BYTES = 4096
MEBIBYTE = 1024 * 1024

_COMMIT = "fanfare_journal_latency_seconds"
_TOLD = {
    "queued_facts": "fanfare_journal_queued_facts",
    "node_connections": "fanfare_connections",
    "loop_lag_ms": "fanfare_loop_lag_max_seconds",
    "loop_hold_ms": "fanfare_loop_hold_seconds",
    "loop_gap_ms": "fanfare_loop_gap_seconds",
    "loop_busy_share": "fanfare_loop_busy_ratio",
}
"""What is sampled of a node, as far as it tells it."""


class Processes:
    """Processor time and memory of groups of processes, since the last look.

    Args:
        groups: process ids by the name of the group. Those below `postgres` share memory, which counts once.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: [psutil.Process(pid) for pid in pids] for name, pids in groups.items()}
        self._cpu_s: dict[int, float] = {}
        self._looked_s = time.monotonic()
        self.look()

    def add(self, name: str, pid: int) -> None:
        """One more process of a group, as of a node that was started again."""
        self._groups[name].append(psutil.Process(pid))

    def look(self) -> dict[str, float]:
        """By group: `<name>_cpu` in processors, `<name>_mib`; and `tcp_mib`, what the kernel holds for
        sockets. A process that is gone counts nothing."""
        now = time.monotonic()
        passed_s, self._looked_s = max(now - self._looked_s, 1e-3), now
        found: dict[str, float] = {}
        for name, processes in self._groups.items():
            members = _with_children(processes) if name == "postgres" else processes
            cpu_s, mebibytes = self._cost(members, shared=name == "postgres")
            found[f"{name}_cpu"] = cpu_s / passed_s
            found[f"{name}_mib"] = mebibytes
        tcp_mib = kernel_tcp_mib()
        if tcp_mib is not None:
            found["tcp_mib"] = tcp_mib
        return found

    def _cost(self, processes: Iterable[psutil.Process], *, shared: bool) -> tuple[float, float]:
        spent_s, own, common = 0.0, 0, 0
        for process in processes:
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue
            cpu_s = times.user + times.system
            spent_s += cpu_s - self._cpu_s.get(process.pid, cpu_s)
            self._cpu_s[process.pid] = cpu_s
            in_common = getattr(memory, "shared", 0) if shared else 0
            own += memory.rss - in_common
            common = max(common, in_common)
        return spent_s, (own + common) / MEBIBYTE


def _with_children(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return found


def kernel_tcp_mib(path: Path = Path("/proc/net/sockstat")) -> float | None:
    """Buffers of all TCP sockets of the machine; None where the kernel does not tell."""
    try:
        text = path.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "TCP:" and "mem" in words:
            return int(words[words.index("mem") + 1]) * PAGE_BYTES / MEBIBYTE
    return None


class NodeMetrics:
    """What one node's `/metrics` says, since the last look.

    Args:
        url: address of its HTTP API.
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = f"{url}/metrics"
        self._client = client
        self._buckets: dict[float, float] = {}
        self.told: dict[str, float] = {}
        """What it said last; empty before it said anything."""
        self.commits: dict[float, float] = {}
        """Commits since the first look, by the upper bound of their latency in seconds."""

    async def watch(self) -> None:
        """Ask now and then, forever. A node with much to do takes its time to answer; nothing else waits for
        it."""
        while True:
            await self.look()
            await trio.sleep(SAMPLE_S)

    async def look(self) -> None:
        """Ask, and note what it says. A node that does not answer leaves all as it was."""
        try:
            response = await self._client.get(self._url)
        except httpx.TransportError:
            return
        if not response.is_success:
            return
        values, buckets = parse_metrics(response.text)
        before = self._buckets
        if any(buckets.get(bound, 0) < count for bound, count in before.items()):
            before = {}  # the node has started again, and counts anew
        fresh = {bound: count - before.get(bound, 0) for bound, count in buckets.items()}
        if self._buckets:
            for bound, count in fresh.items():
                self.commits[bound] = self.commits.get(bound, 0) + count
        self._buckets = buckets
        found = {
            name: values[metric] * (1000 if name.endswith("_ms") else 1)
            for name, metric in _TOLD.items()
            if metric in values
        }
        for name, percent in (("commit_p50_ms", 50), ("commit_p99_ms", 99)):
            bound_s = bound_of(fresh, percent)
            if bound_s is not None:
                found[name] = bound_s * 1000
        self.told = found


def combined(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of several nodes: the most of what is a time or a share, the sum of all else."""
    found: dict[str, float] = {}
    for each in told:
        for name, value in each.items():
            before = found.get(name, 0.0)
            found[name] = max(before, value) if name.endswith(("_ms", "_share")) else before + value
    return found


async def sample(
    nodes: Sequence[NodeMetrics],
    processes: Processes,
    timeline: Timeline,
    restarted: Callable[[], Iterable[int]] = tuple,
) -> None:
    """Write what processes use and nodes say on the timeline once a second, forever. `restarted` gives the
    process ids of nodes that were started since the last call."""
    async with trio.open_nursery() as asking:
        for node in nodes:
            asking.start_soon(node.watch)
        while True:
            await trio.sleep(SAMPLE_S)
            for pid in restarted():
                processes.add("nodes", pid)
            usage = processes.look() | combined(node.told for node in nodes)
            timeline.at(time.monotonic()).usage.update(usage)


def parse_metrics(text: str) -> tuple[dict[str, float], dict[float, float]]:
    """Values without labels by name; and of the commit latency, how many were in each bucket, by its upper
    bound."""
    values: dict[str, float] = {}
    reached: list[tuple[float, float]] = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if line.startswith("#") or not name:
            continue
        if name.startswith(f"{_COMMIT}_bucket"):
            reached.append((float(name.partition('le="')[2].partition('"')[0]), float(value)))
        elif "{" not in name:
            values[name] = float(value)
    buckets, below = {}, 0.0
    for bound, count in sorted(reached):
        buckets[bound] = count - below
        below = count
    return values, buckets


def bound_of(buckets: Mapping[float, float], percent: float) -> float | None:
    """The bound that `percent` of the counted do not exceed; None of nothing. What has no bound counts as the
    last one."""
    wanted, seen = sum(buckets.values()) * percent / 100, 0.0
    if not wanted:
        return None
    last = 0.0
    for bound, count in sorted(buckets.items()):
        seen += count
        last = bound if bound != float("inf") else last
        if count and seen >= wanted:
            return last
    return last
