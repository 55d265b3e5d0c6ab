"""One picture: the rates as bars on a logarithmic scale, with their spread, a panel a kind of work."""

import math
from html import escape

from .contestants import SETTINGS, TURNWISE

_TITLES = {"http": "Jobs that make an HTTP call, a second", "none": "Jobs that do nothing, a second"}
# Sizes in pixels.
WIDTH, NAMES, FIGURES, BAR, GAP, HEAD, MARGIN = 900, 210, 90, 16, 7, 54, 14
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px }
  .small { font-size: 11px; fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .spread { stroke: #24292f; stroke-width: 1.5 }
  .peer { fill: #8c959f } .peer.fast { fill: #57606a }
  .turnwise { fill: #54aeff } .turnwise.fast { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #8d96a0 } .grid { stroke: #30363d } .spread { stroke: #e6edf3 }
    .peer { fill: #484f58 } .peer.fast { fill: #6e7681 }
  }
"""


def svg(figures):
    """The picture, as SVG."""
    parts, top = [], MARGIN
    for kind, title in _TITLES.items():
        shown = [figure for figure in figures if figure.kind == kind and figure.rate]
        if shown:
            panel, top = _panel(title, shown, top)
            parts += panel
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Job queues compared">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _panel(title, figures, top):
    ranked = sorted(figures, key=lambda figure: -figure.rate)
    least = math.floor(math.log10(min(figure.least for figure in ranked)))
    most = math.ceil(math.log10(max(figure.most for figure in ranked)))
    room = WIDTH - NAMES - FIGURES - 2 * MARGIN

    def x(rate):
        return NAMES + MARGIN + room * (math.log10(rate) - least) / max(1, most - least)

    bottom = top + HEAD + len(ranked) * (BAR + GAP)
    parts = [f'<text class="title" x="{MARGIN}" y="{top + 16}">{escape(title)}</text>']
    for power in range(least, most + 1):
        place = x(10**power)
        parts.append(f'<line class="grid" x1="{place:.1f}" y1="{top + HEAD - 8}" x2="{place:.1f}" y2="{bottom}"/>')
        label = f"{10**power:,}" if power >= 0 else f"{10**power:g}"
        parts.append(f'<text class="small" x="{place:.1f}" y="{top + HEAD - 14}" text-anchor="middle">{label}</text>')
    for number, figure in enumerate(ranked):
        parts += _bar(figure, x, top + HEAD + number * (BAR + GAP), least)
    return parts, bottom + 2 * MARGIN


def _bar(figure, x, y, least):
    kind = "turnwise" if figure.system == TURNWISE else "peer"
    fast = "" if figure.setting == SETTINGS[0] else " fast"
    start, end, middle = x(10**least), x(figure.rate), y + BAR / 2
    name = f"{escape(figure.system)}, {figure.setting}"
    return [
        f'<text x="{NAMES}" y="{middle + 4.5:.1f}" text-anchor="end">{name}</text>',
        f'<rect class="{kind}{fast}" x="{start:.1f}" y="{y}" width="{max(1, end - start):.1f}" height="{BAR}" rx="2"/>',
        f'<line class="spread" x1="{x(figure.least):.1f}" y1="{middle}" x2="{x(figure.most):.1f}" y2="{middle}"/>',
        f'<text class="small" x="{x(figure.most) + 6:.1f}" y="{middle + 4:.1f}">{_number(figure.rate)}</text>',
    ]


def _number(rate):
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
