"""The command: what is measured, in which order, and where the results go."""

import argparse
import json
import os
import platform
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import contestants, drain, figures, idle, installed, pickup, plot, table
from .contestants import H2C, KINDS, SETTINGS, SYSTEMS, TURNWISE
from .postgres import Server
from .processes import Failed
from .target import Target

_ABOUT = """\
Have Turnwise and other job queues do the same work, one after the other, several times in turn.

It installs them into the target folder, starts a PostgreSQL server and a target of its own, and leaves nothing running.
The tables, the figures as JSON and a picture go to target/peers/."""


@dataclass
class Result:
    """Everything that was measured."""

    options: dict
    versions: dict
    missing: dict
    machine: dict = field(default_factory=dict)
    ceiling: float = 0.0
    runs: list = field(default_factory=list)
    pickups: list = field(default_factory=list)
    idles: list = field(default_factory=list)

    @property
    def figures(self):
        return figures.of(self.runs)

    def to_json(self):
        return {
            "options": self.options,
            "versions": self.versions,
            "machine": self.machine,
            "missing": self.missing,
            "target_requests_a_second": self.ceiling,
            "figures": [figure.to_json() for figure in self.figures],
            "runs": [run.to_json() for run in self.runs],
            "pickups": [one.to_json() for one in self.pickups],
            "idle": [one.to_json() for one in self.idles],
        }


def main():
    options = _options()
    # Told to end, it ends all that it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say("installing what is not there yet")
    there = installed.install(options.turnwise, options.development)
    if options.install_only:
        return 1 if there.missing else 0
    if "target" in there.missing:
        print(f"peers: there is nothing to call: {there.missing['target']}", file=sys.stderr)
        return 1
    asked = {name: getattr(options, name) for name in ("jobs", "runs", "limit", "kinds", "pickup", "idle", "development")}
    result = Result(asked, there.versions, there.missing)
    taking_part = contestants.all_of(there, options.only)
    try:
        with Target(there.programs["target"][0]) as target:
            result.ceiling = target.ceiling()
            say(f"the target alone: {result.ceiling:,.0f} requests/s")
            with Server() as server:
                result.machine = _machine(server)
                _drains(options, result, taking_part, there, server, target)
                _pickups(options, result, taking_part, server, target)
            if options.idle:
                say(f"idle workers, for {options.idle} s")
                result.idles = idle.measure(taking_part, target, options.idle)
    except Failed as failure:
        print(f"peers: {failure}", file=sys.stderr)
        return 1
    _write(options, result)
    return 0


def say(what):
    print(f"peers: {what}", file=sys.stderr, flush=True)


def _drains(options, result, taking_part, there, server, target):
    for number in range(1, options.runs + 1):
        for kind in options.kinds:
            for contestant in taking_part:
                if contestant.setting == H2C and kind == "none":
                    continue
                if contestant.system == TURNWISE and kind == "none":
                    if "bench" not in there.programs:
                        continue
                    run = drain.measure_bench(there.programs["bench"], contestant.setting, options.jobs)
                else:
                    run = drain.measure(contestant, kind, server, target, options.jobs, options.limit)
                result.runs.append(run)
                say(f"run {number} of {options.runs}, {kind}, {contestant.name}: {_in_short(run)}")
    loads = [run.load for run in result.runs] or [os.getloadavg()[0]]
    result.machine |= {"load_least": min(loads), "load_most": max(loads)}


def _in_short(run):
    if run.void:
        return f"void: {run.void}"
    return f"{run.rate:,.1f} jobs/s" + (f", cut after {run.ran} jobs" if run.cut else "")


def _pickups(options, result, taking_part, server, target):
    if not options.pickup:
        return
    for contestant in taking_part:
        if contestant.setting == SETTINGS[0] or contestant.system in options.pickup_fast:
            one = pickup.measure(contestant, server, target, options.pickup, options.pickup_limit)
            result.pickups.append(one)
            short = f"void: {one.void}" if one.void else f"p50 {one.p50:.1f} ms of {len(one.latencies)}"
            say(f"pick-up, {contestant.name}: {short}")


def _machine(server):
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "postgres": server.version,
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[1].strip() if model else platform.machine(),
        "kernel": platform.release(),
    }


def _write(options, result):
    text = table.report(result)
    whole = json.dumps(result.to_json(), indent=1)
    place = options.output
    place.mkdir(parents=True, exist_ok=True)
    (place / "peers.md").write_text(text, encoding="utf-8")
    (place / "peers.json").write_text(whole + "\n", encoding="utf-8")
    if any(figure.rate for figure in result.figures):
        (place / "peers.svg").write_text(plot.svg(result.figures), encoding="utf-8")
    print(whole if options.json else text)
    say(f"written to {place}")


def _options():
    parser = argparse.ArgumentParser(
        prog="scripts/peers", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = _whole(1, 1_000_000)
    add = parser.add_argument
    add("--jobs", type=number, default=20_000, help="how many jobs a run has [default: 20000]")
    add("--runs", type=_whole(1, 100), default=3, help="how often each contestant runs, in turn [default: 3]")
    add("--limit", type=number, default=60, help="seconds after which a run is cut [default: 60]")
    add("--kinds", type=_some(KINDS), default=list(KINDS), help="what jobs do: http, none [default: http,none]")
    add("--only", type=_some(SYSTEMS), default=[], help="only these systems, separated by commas [default: all]")
    add("--pickup", type=_whole(0, 10_000), default=100, help="lone jobs a contestant; 0: none [default: 100]")
    add("--pickup-limit", type=number, default=300, help="seconds for a contestant's lone jobs [default: 300]")
    add("--pickup-fast", type=_some(SYSTEMS), default=["pg-boss", "apalis-postgres"], help=(
        "whose lone jobs are measured in the fast setting as well: those that only there are told of a new job "
        "[default: pg-boss,apalis-postgres]"
    ))
    add("--idle", type=_whole(0, 3600), default=30, help="seconds to watch idle workers; 0: do not [default: 30]")
    add("--turnwise", type=Path, help="the program to measure [default: a release build of this tree]")
    add("--output", type=Path, default=installed.PLACE, help="the folder for the results [default: target/peers]")
    add("--development", action="store_true", help="build for development: quicker, and no figures to publish")
    add("--install-only", action="store_true", help="install, and measure nothing")
    add("--json", action="store_true", help="print JSON in place of the tables")
    return parser.parse_args()


def _whole(least, most):
    def parse(text):
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return parse


def _some(known):
    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}: it is one of {', '.join(known)}")
        return names

    return parse
