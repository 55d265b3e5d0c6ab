"""What every contestant in Python does alike: what the harness asks for, what a job's work is, how completions are
counted. Not how jobs reach it."""

import asyncio
import os
import sys
import time

import aiohttp

VERB = sys.argv[1]
DATABASE = os.environ["DATABASE_URL"]
JOBS = int(os.environ.get("PEER_JOBS") or 0)
TARGET = os.environ.get("PEER_TARGET")

# Whether the setting is the one that the documents recommend for many small jobs, and not the defaults.
FAST = os.environ.get("PEER_SETTING") == "fast"


class Call:
    """The work of a job is one POST to the target with keep-alive."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession()

    async def run(self, job: int) -> None:
        async with self.session.post(f"{TARGET}/jobs/{job}") as answer:
            await answer.read()
            answer.raise_for_status()


class Count:
    """The work of a job is nothing but to be counted."""

    def __init__(self) -> None:
        self.seen = bytearray(JOBS)
        self.count = self.distinct = self.first = self.last = 0
        self.reporter = asyncio.ensure_future(self.report())

    async def run(self, job: int) -> None:
        self.last = time.monotonic_ns()
        self.first = self.first or self.last
        self.count += 1
        if not self.seen[job]:
            self.seen[job] = 1
            self.distinct += 1

    async def report(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            print(
                f'{{"count":{self.count},"distinct":{self.distinct},"first":{self.first},"last":{self.last}}}',
                flush=True,
            )


def ordered() -> Call | Count:
    """The work that was ordered; call it from the event loop."""
    return Call() if TARGET else Count()


async def trickle(enqueue) -> None:
    """Enqueue a job for each number that comes in, and print the instant at which it was committed."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await enqueue(int(line))
        print(time.monotonic_ns(), flush=True)
