"""Who takes part, in which settings, and how each is told what to do."""

import os
from dataclasses import dataclass, field

from .processes import Child, run

SETTINGS = ("defaults", "fast", "fast, h2c")
# The last is Turnwise's alone, and only where jobs make calls: many calls share a connection to the target.
H2C = SETTINGS[2]
KINDS = ("http", "none")
# How long a schema, or the jobs of a run, may take to be made, in seconds.
PATIENCE = 120.0
# Turnwise's capacity in the setting `fast`.
CAPACITY = 1000
TURNWISE = "Turnwise"
SYSTEMS = (TURNWISE, "graphile-worker", "pg-boss", "PgQueuer", "Procrastinate", "graphile_worker", "apalis-postgres")
# Those that only look from time to time, in seconds.
LOOKS = {("pg-boss", "defaults"): 2.0, ("apalis-postgres", "defaults"): 30.0}


@dataclass(frozen=True)
class Contestant:
    """A system in a setting."""

    system: str
    setting: str
    # Starts of commands: the system's program, and the one that enqueues.
    program: list = field(repr=False)
    enqueuer: list = field(repr=False)
    # How often it looks for jobs by itself when nothing wakes it, in seconds: lone jobs come at any point of that.
    looks: float = 1.0

    @property
    def name(self):
        return f"{self.system}, {self.setting}"

    def setup(self, database):
        """Make the schema."""
        self._run([*self.program, "setup"], database)

    def fill(self, database, jobs):
        """Enqueue the jobs 0 to `jobs` − 1."""
        self._run([*self.enqueuer, "fill"], database, jobs)

    def trickle(self, database):
        """A program that enqueues one job after the other."""
        return Child([*self.enqueuer, "trickle"], env=self._environment(database))

    def work(self, database, jobs, target):
        """Its worker process; without a target, jobs do nothing but be counted."""
        return Child([*self.program, "work"], env=self._environment(database, jobs, target))

    def _run(self, command, database, jobs=0):
        run(command, seconds=PATIENCE, env=self._environment(database, jobs))

    def _environment(self, database, jobs=0, target=""):
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "DATABASE_URL": database,
            "PEER_JOBS": str(jobs),
            "PEER_SETTING": SETTINGS[0] if self.setting == SETTINGS[0] else SETTINGS[1],
            "PEER_TARGET": target,
            # graphile-worker writes a line a job otherwise, which its own measurements switch off as well.
            "NO_LOG_SUCCESS": "1",
            "NODE_ENV": "production",
        }


class Turnwise(Contestant):
    """Turnwise has a command of its own for each of these."""

    def setup(self, database):
        self._run([*self.program, "migrate", "--database-url", database], database)

    def work(self, database, jobs, target):
        capacity = [] if self.setting == SETTINGS[0] else ["--capacity", str(CAPACITY)]
        if self.setting == H2C:
            target = target.replace("http://", "h2c://", 1)
        command = ["run", "--database-url", database, "--target", target, "--listen", "off", *capacity]
        return Child([*self.program, *command], env=self._environment(database))


def all_of(installed, only):
    """The contestants that are there, of those that were asked for, in the order in which they run."""
    found = []
    for setting in SETTINGS:
        for system in SYSTEMS:
            if (only and system not in only) or (setting == H2C and system != TURNWISE):
                continue
            program = installed.programs.get(system)
            if program is None:
                continue
            if system == TURNWISE:
                found.append(Turnwise(system, setting, program, installed.programs["target"]))
            else:
                looks = LOOKS.get((system, setting), 1.0)
                found.append(Contestant(system, setting, program, program, looks))
    return found

