"""How soon a lone job is run: enqueued at random times while its worker has nothing else to do, from the commit to the
request at the target."""

import random
import time
from dataclasses import asdict, dataclass, field

from .figures import percentile
from .processes import Failed

# How long a worker may take to run its first job, and then rests, in seconds.
WARM_UP = 60.0
REST = 3.0
# How long the commit of one may take, in seconds.
PATIENCE = 30.0


@dataclass
class Pickup:
    system: str
    setting: str
    void: str | None = None
    # In milliseconds, as they came.
    latencies: list = field(default_factory=list)
    p50: float | None = None
    p99: float | None = None
    max: float | None = None

    def to_json(self):
        return asdict(self)


def measure(contestant, server, target, jobs, limit):
    """So many lone jobs, or as many as there is time for."""
    pickup = Pickup(contestant.system, contestant.setting)
    database = server.create()
    url = server.url(database)
    try:
        contestant.setup(url)
        target.reset(jobs + 1)
        worker = contestant.work(url, jobs, target.origin)
        client = contestant.trickle(url)
        try:
            _lone(pickup, contestant, worker, client, target, jobs, limit)
        finally:
            client.stop()
            worker.stop()
    except Failed as failure:
        pickup.void = str(failure)
    finally:
        server.drop(database)
    if not pickup.latencies:
        pickup.void = pickup.void or f"no lone job was run within {limit} s"
    else:
        pickup.p50 = percentile(pickup.latencies, 50)
        pickup.p99 = percentile(pickup.latencies, 99)
        pickup.max = max(pickup.latencies)
    return pickup


def _lone(pickup, contestant, worker, client, target, jobs, limit):
    # The first job is only to see that both are there.
    if _one(worker, client, target, jobs, WARM_UP) is None:
        raise Failed(f"its first job was not run within {WARM_UP:.0f} s")
    time.sleep(REST)
    chance = random.Random(contestant.name)
    end = time.monotonic() + limit
    for job in range(jobs):
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(0.05 + contestant.looks * chance.random())
        latency = _one(worker, client, target, job, left)
        if latency is None:
            return
        pickup.latencies.append(latency)


def _one(worker, client, target, job, patience):
    """Enqueue a job and wait for its call: milliseconds between; none if there is no time left for it."""
    client.say(str(job))
    committed = int(client.line(PATIENCE))
    end = time.monotonic() + patience
    while not (stamp := target.stamp(job)):
        worker.check()
        if time.monotonic() > end:
            return None
        time.sleep(0.02)
    return (stamp - committed) / 1e6
