"""A throwaway PostgreSQL server: which programs, as whom, in which folder; its settings are PostgreSQL's own but for
where it listens. Its folder goes with it, also when the harness is killed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .processes import Child, Failed, run

# The version that the figures are for; another one is taken when this one is not there, and said.
WANTED = "15"
# How long the server may take to start, and a statement of the harness's to be answered, in seconds.
PATIENCE = 60.0
# Waits until its input is closed, that is until the harness has ended, and leaves nothing behind.
WATCHDOG = """
read -r line
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
[ -z "$pid" ] || kill -QUIT "$pid" 2>/dev/null
sleep 0.5
rm -rf "$1"
"""


class Server:
    """A server, and the databases in it."""

    def __init__(self, *settings):
        self.programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="turnwise-peers-"))
        self.user = _other_user()
        if self.user:
            os.chown(self.folder, *self.user)
        self.watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, "watchdog", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.server = None
        self.made = 0
        try:
            self._start(settings)
        except BaseException:
            self.stop()
            raise

    def _start(self, settings):
        data = self.folder / "data"
        init = ["-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth-host=trust"]
        self._program("initdb", *init, "--auth-local=reject")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        places = ["listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={self.port}"]
        options = [part for setting in [*places, *settings] for part in ("-c", setting)]
        command = [self.programs / "postgres", "-D", data, *options]
        self.server = Child(command, env=self._environment(), cwd=self.folder, user=self.user, death=signal.SIGQUIT)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.version = self.ask("SHOW server_version").split()[0]
                return
            except Failed:
                self.server.check()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _program(self, name, *arguments):
        command = [self.programs / name, *arguments]
        return run(command, seconds=PATIENCE, env=self._environment(), cwd=self.folder, user=self.user)

    def _environment(self):
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}

    def ask(self, statement, database="postgres"):
        """What a statement answers, a line a row, its fields parted by a bar."""
        psql = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", statement]
        return self._program("psql", *psql).strip()

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def create(self):
        """A new empty database: its name."""
        self.made += 1
        name = f"peers_{self.made}"
        self.ask(f"CREATE DATABASE {name}")
        return name

    def drop(self, database):
        self.ask(f"DROP DATABASE {database} WITH (FORCE)")

    def stop(self):
        if self.server:
            # Its data are thrown away: there is nothing to write down.
            self.server.stop(ask=signal.SIGQUIT)
        self.watchdog.stdin.close()
        self.watchdog.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def _programs():
    """Where the server's programs are."""
    folders = [Path(f"/usr/lib/postgresql/{WANTED}/bin"), Path(f"/usr/pgsql-{WANTED}/bin")]
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if all((folder / name).exists() for name in ("postgres", "initdb", "psql")):
            return folder
    raise Failed("PostgreSQL's server programs are missing: run `scripts/setup tests`, or put them into the PATH")


def _other_user():
    """Whom the server runs as, when that is not who starts it: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            continue
    raise Failed("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
