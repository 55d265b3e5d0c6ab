"""What people read of it: tables in Markdown."""

from .contestants import SETTINGS

_WORK = {
    "http": "Each job one POST to the same target",
    "none": "Each job nothing",
}


def report(result):
    """All tables of a result, each under its heading."""
    parts = [_about(result)]
    for kind in _WORK:
        if figures := [figure for figure in result.figures if figure.kind == kind]:
            parts.append(f"### {_WORK[kind]}\n\n{_drains(figures, result)}")
    if result.pickups:
        parts.append(f"### Pick-up of a lone job\n\n{_pickups(result)}")
    if result.idles:
        parts.append(f"### Statements a second of an idle worker\n\n{_idles(result)}")
    if result.missing:
        lines = [f"- {name}: {reason.splitlines()[-1]}" for name, reason in result.missing.items()]
        parts.append("### Missing\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _about(result):
    machine = result.machine
    builds = "**Builds for development: these figures say nothing.** " if result.options.get("development") else ""
    return (
        f"{builds}{result.options['jobs']} jobs, {result.options['runs']} runs of each contestant in turn, each at most "
        f"{result.options['limit']} s. PostgreSQL {machine['postgres']}, Node.js {result.versions['Node.js']}, Python "
        f"{result.versions['Python']}, {machine['cores']} cores ({machine['processor']}). "
        f"The target alone answers {result.ceiling:,.0f} requests/s of a trivial client. "
        f"The machine's load at the starts of the runs: {machine['load_least']:.1f} to {machine['load_most']:.1f}."
    )


def _drains(figures, result):
    heads = ["system", "setting", "jobs/s", "least", "most", "Turnwise is", "from start", "target busy", "runs"]
    order = {setting: number for number, setting in enumerate(SETTINGS)}
    ranked = sorted(figures, key=lambda figure: (order[figure.setting], -(figure.rate or 0)))
    notes = []
    rows = []
    for figure in ranked:
        runs = f"{figure.counted} of {figure.runs}"
        if figure.cut:
            runs += f", {figure.cut} cut"
        if figure.void:
            notes.append(f"- {figure.system}, {figure.setting}: void: {figure.void[0]}")
        rows.append(
            [
                f"{figure.system} {result.versions.get(figure.system, '')}".strip(),
                figure.setting,
                _number(figure.rate),
                _number(figure.least),
                _number(figure.most),
                "" if figure.turnwise is None or figure.system == "Turnwise" else _times(figure.turnwise),
                "" if figure.from_start is None else f"{figure.from_start:.1f} s",
                "" if figure.target_busy is None else f"{figure.target_busy:.0%}" + " *" * figure.near_ceiling,
                runs,
            ]
        )
    text = _table(heads, rows, left=2)
    if any(figure.near_ceiling for figure in figures):
        notes.insert(0, "\\* The target is near its ceiling: this figure says as much of it as of the contestant.")
    return text + ("\n\n" + "\n".join(notes) if notes else "")


def _times(ratio):
    """How many times as fast, so that also what is slower is seen at once."""
    return f"{ratio:.2g} ×" if ratio < 100 else f"{ratio:,.0f} ×"


def _number(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _pickups(result):
    heads = ["system", "setting", "p50", "p99", "most", "jobs"]
    ranked = sorted(result.pickups, key=lambda pickup: pickup.p50 or float("inf"))
    rows = [
        [
            pickup.system,
            pickup.setting,
            _milliseconds(pickup.p50),
            _milliseconds(pickup.p99),
            _milliseconds(pickup.max),
            str(len(pickup.latencies)) if pickup.void is None else f"void: {pickup.void}",
        ]
        for pickup in ranked
    ]
    return _table(heads, rows, left=2)


def _milliseconds(value):
    return "–" if value is None else f"{value:,.1f} ms"


def _idles(result):
    ranked = sorted(result.idles, key=lambda idle: float("inf") if idle.statements is None else idle.statements)
    rows = [[idle.system, "–" if idle.statements is None else f"{idle.statements:.2f}", idle.void or ""] for idle in ranked]
    if not any(row[2] for row in rows):
        return _table(["system", "statements/s"], [row[:2] for row in rows], left=1)
    return _table(["system", "statements/s", "void"], rows, left=1)


def _table(heads, rows, left):
    """The first columns stand left, the others right."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    lines = [heads, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
