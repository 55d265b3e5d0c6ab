"""Of several runs, one figure: the median, with its spread."""

import math
from dataclasses import asdict, dataclass
from statistics import median

# The target is nearly busy all the time from here on: the figure says at least as much of it as of the contestant.
NEAR_CEILING = 0.8


@dataclass
class Figure:
    """What a contestant came to in one kind of work."""

    system: str
    setting: str
    kind: str
    # Jobs a second: median, least and most of the runs that count.
    rate: float | None
    least: float | None
    most: float | None
    # Median seconds from the start of the worker process to the last job, of runs that were not cut.
    from_start: float | None
    # Median share of one core that the target was busy.
    target_busy: float | None
    # The runs that count, all runs, and those that were cut.
    counted: int
    runs: int
    cut: int
    # The reasons of those that do not count.
    void: list
    # How many times as fast Turnwise is in the same setting.
    turnwise: float | None = None

    def to_json(self):
        return asdict(self)

    @property
    def near_ceiling(self):
        return self.target_busy is not None and self.target_busy >= NEAR_CEILING


def of(runs):
    """The figures of these runs, a contestant and kind each, in the order in which they first came."""
    groups = {}
    for run in runs:
        groups.setdefault((run.system, run.setting, run.kind), []).append(run)
    figures = [_figure(*key, group) for key, group in groups.items()]
    turnwise = {(figure.setting, figure.kind): figure.rate for figure in figures if figure.system == "Turnwise"}
    for figure in figures:
        rate = turnwise.get((figure.setting, figure.kind))
        if rate and figure.rate:
            figure.turnwise = rate / figure.rate
    return figures


def _figure(system, setting, kind, runs):
    good = [run for run in runs if run.void is None]
    rates = [run.rate for run in good]
    return Figure(
        system,
        setting,
        kind,
        rate=_median(rates),
        least=min(rates, default=None),
        most=max(rates, default=None),
        from_start=_median([run.from_start for run in good if not run.cut and run.from_start is not None]),
        target_busy=_median([run.target_busy for run in good if run.target_busy is not None]),
        counted=len(good),
        runs=len(runs),
        cut=sum(run.cut for run in good),
        void=[run.void for run in runs if run.void is not None],
    )


def _median(values):
    return median(values) if values else None


def percentile(values, part):
    """The least value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)]
