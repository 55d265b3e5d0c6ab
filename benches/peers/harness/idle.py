"""What a worker costs that has nothing to do: statements a second at the database, as it counts them itself."""

import time
from dataclasses import asdict, dataclass

from .contestants import SETTINGS
from .postgres import Server
from .processes import Failed

# What begins is not idle yet, in seconds.
REST = 20.0
SETTING = "shared_preload_libraries=pg_stat_statements"


@dataclass
class Idle:
    system: str
    void: str | None = None
    # A second, BEGIN and COMMIT counted.
    statements: float | None = None

    def to_json(self):
        return asdict(self)


def measure(contestants, target, seconds):
    """All of them at once, each in a database of its own: they hardly do anything."""
    found = {contestant.system: Idle(contestant.system) for contestant in contestants if _counts(contestant)}
    with Server(SETTING) as server:
        server.ask("CREATE EXTENSION pg_stat_statements")
        workers = {}
        try:
            for contestant in filter(_counts, contestants):
                database = server.create()
                try:
                    contestant.setup(server.url(database))
                    workers[database] = contestant.system, contestant.work(server.url(database), 0, target.origin)
                except Failed as failure:
                    found[contestant.system].void = str(failure)
            time.sleep(REST)
            server.ask("SELECT pg_stat_statements_reset()")
            start = time.monotonic()
            time.sleep(seconds)
            counted = _counted(server)
            took = time.monotonic() - start
            for database, (system, worker) in workers.items():
                try:
                    worker.check()
                    found[system].statements = counted.get(database, 0) / took
                except Failed as failure:
                    found[system].void = str(failure)
        finally:
            for _, worker in workers.values():
                worker.stop()
    return list(found.values())


def _counts(contestant):
    return contestant.setting == SETTINGS[0]


def _counted(server):
    """Statements by database."""
    rows = server.ask(
        "SELECT datname, sum(calls) FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid GROUP BY datname"
    )
    return {name: int(calls) for name, calls in (row.split("|") for row in rows.splitlines())}
