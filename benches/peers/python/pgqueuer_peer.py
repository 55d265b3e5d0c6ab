"""The contestant PgQueuer. Its settings are explained in benches/peers/README.md."""

import asyncio

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from order import DATABASE, FAST, JOBS, VERB, ordered, trickle

ENTRYPOINT = "job"
SETTINGS = {"batch_size": 500} if FAST else {}


async def main() -> None:
    connection = await asyncpg.connect(DATABASE)
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    if VERB == "setup":
        await queries.install()
        if FAST:
            await queries.optimize_autovacuum()
    elif VERB == "fill":
        payloads = [str(job).encode() for job in range(JOBS)]
        await queries.enqueue([ENTRYPOINT] * JOBS, payloads, [0] * JOBS)
    elif VERB == "trickle":
        await trickle(lambda job: queries.enqueue(ENTRYPOINT, str(job).encode()))
    else:
        await work(driver)
    await connection.close()


async def work(driver: AsyncpgDriver) -> None:
    ordered_work = ordered()
    queuer = PgQueuer(driver)

    @queuer.entrypoint(ENTRYPOINT)
    async def job(job: Job) -> None:
        await ordered_work.run(int(job.payload))

    await queuer.run(**SETTINGS)


# As its command does.
uvloop.run(main())
