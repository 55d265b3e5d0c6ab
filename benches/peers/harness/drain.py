"""One run: a fresh database full of jobs, one worker process, the time that it takes. Decides what a run is worth, and
when it is void."""

import json
import os
import time
from dataclasses import asdict, dataclass

from .contestants import CAPACITY, SETTINGS, TURNWISE
from .processes import Failed, run

# A run that gets no further for so long has failed, in seconds.
STUCK = 30.0
# How long a repeated request may take to show after the last new one, in seconds.
AFTERMATH = 0.3
# How long Turnwise's own benchmark may take, in seconds.
BENCH_SECONDS = 300


@dataclass
class Run:
    """What one run came to."""

    system: str
    setting: str
    kind: str
    # Void: why it does not count.
    void: str | None = None
    # Different jobs that were run, of how many.
    ran: int = 0
    jobs: int = 0
    # Requests, or completions, beyond one a job.
    repeated: int = 0
    # From the first to the last of them, and from the start of the worker process, in seconds.
    seconds: float | None = None
    from_start: float | None = None
    # Between the first and the last, jobs a second.
    rate: float | None = None
    # Ended by the harness, since it took too long.
    cut: bool = False
    # The share of one core that the target was busy.
    target_busy: float | None = None
    # The machine's load when the run began.
    load: float = 0.0

    def to_json(self):
        return asdict(self)


def measure(contestant, kind, server, target, jobs, limit):
    """Have a contestant run these jobs."""
    outcome = Run(contestant.system, contestant.setting, kind, jobs=jobs, load=os.getloadavg()[0])
    database = server.create()
    try:
        _drain(outcome, contestant, server.url(database), _prepared(server, contestant, database, jobs), target, limit)
    except Failed as failure:
        outcome.void = str(failure)
    finally:
        server.drop(database)
    return outcome


def _prepared(server, contestant, database, jobs):
    """Make a database full of jobs, the same for all: with statistics, and nothing left to write."""
    contestant.setup(server.url(database))
    contestant.fill(server.url(database), jobs)
    server.ask("ANALYZE", database)
    server.ask("CHECKPOINT")
    return jobs


def _drain(outcome, contestant, url, jobs, target, limit):
    http = outcome.kind == "http"
    target.reset(jobs)
    busy = target.processor()
    start = time.monotonic_ns()
    worker = contestant.work(url, jobs, target.origin if http else "")
    try:
        source = target.report if http else lambda: _said(worker)
        report = _watch(source, worker, jobs, start, limit)
        if report["distinct"] == jobs:
            time.sleep(AFTERMATH)
            report = source()
        busy = target.processor() - busy
    finally:
        worker.stop()
    _judge(outcome, report, start)
    if http and outcome.seconds:
        outcome.target_busy = busy / outcome.seconds


def _watch(source, worker, jobs, start, limit):
    """Wait until all jobs have run, or it has taken too long: what there is then."""
    done, since = 0, time.monotonic()
    while True:
        worker.check()
        report = source()
        if report["distinct"] > done:
            done, since = report["distinct"], time.monotonic()
        if done == jobs or time.monotonic_ns() - start > limit * 1e9:
            return report
        if time.monotonic() - since > STUCK:
            raise Failed(f"{done} of {jobs} jobs, and no further for {STUCK:.0f} s; {worker.last_words()}")
        time.sleep(0.05)


def _said(worker):
    """What the worker last said of its count."""
    with worker.arrived:
        while worker.lines and not worker.lines[-1].startswith('{"count"'):
            worker.lines.pop()
        return json.loads(worker.lines[-1]) if worker.lines else {"count": 0, "distinct": 0, "first": 0, "last": 0}


def _judge(outcome, report, start):
    """What a run is worth. All of its jobs, or it was cut; each of them another one, or it is void."""
    outcome.ran = report["distinct"]
    outcome.repeated = report["count"] - report["distinct"]
    outcome.cut = outcome.ran < outcome.jobs
    if outcome.repeated:
        outcome.void = f"{outcome.repeated} jobs were run again"
    if outcome.ran < 2:
        outcome.void = f"{outcome.ran} jobs were run within the limit"
        return
    outcome.seconds = (report["last"] - report["first"]) / 1e9
    outcome.from_start = (report["last"] - start) / 1e9
    outcome.rate = (outcome.ran - 1) / outcome.seconds


def measure_bench(command, setting, jobs):
    """Have Turnwise's own benchmark do the same without calls: from the first claim to the last end, as stored."""
    outcome = Run(TURNWISE, setting, "none", jobs=jobs, load=os.getloadavg()[0])
    capacity = CAPACITY if setting == SETTINGS[1] else 16
    options = ["--kind", "none", "--database", "postgres", "--nodes", "1", "--runs", "1", "--json"]
    try:
        said = run([*command, *options, "--jobs", jobs, "--capacity", capacity], seconds=BENCH_SECONDS)
        (result,) = json.loads(said)
        outcome.ran = result["jobs"]
        outcome.seconds = result["seconds"]
        outcome.rate = result["jobs_a_second"]
    except (Failed, ValueError, KeyError, TypeError) as failure:
        outcome.void = str(failure)
    return outcome
