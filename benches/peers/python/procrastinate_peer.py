"""The contestant Procrastinate. Its settings are explained in benches/peers/README.md."""

import asyncio

import procrastinate

from order import DATABASE, FAST, JOBS, VERB, ordered, trickle

CONCURRENCY = 30
POOL = {"min_size": CONCURRENCY + 1, "max_size": CONCURRENCY + 1} if FAST and VERB == "work" else {}
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE, **POOL))
work = None


@app.task(name="job")
async def job(id: int) -> None:
    await work.run(id)


async def main() -> None:
    global work
    async with app.open_async():
        if VERB == "setup":
            await app.schema_manager.apply_schema_async()
        elif VERB == "fill":
            # A statement of at most a thousand jobs: its parameters stay of a usual size.
            for start in range(0, JOBS, 1000):
                await job.batch_defer_async(*({"id": id} for id in range(start, min(start + 1000, JOBS))))
        elif VERB == "trickle":
            await trickle(lambda id: job.defer_async(id=id))
        else:
            work = ordered()
            await app.run_worker_async(**({"concurrency": CONCURRENCY} if FAST else {}))


asyncio.run(main())
