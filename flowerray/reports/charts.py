"""Charts as SVG that is part of the page: drawn by Matplotlib, coloured and lettered by the page.

Matplotlib writes colours and fonts into style attributes, which the page's policy forbids and which
know no dark mode. They become presentation attributes, and the colours below the page's variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Colours that Matplotlib draws with, and what the page makes of them.
SERIES = [f"#0000{i:02x}" for i in range(1, 9)]
INK, GRID = "#000100", "#000200"
PAGE_COLOURS = {
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
    INK: "currentColor",
    GRID: "var(--rule)",
}
DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))]
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.size": 0,
    "ytick.major.pad": 5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
SIZE = (5.0, 3.1)  # inches of 72 units: what a phone shows without making letters small
# Properties that are valid as SVG attributes; fonts are the page's.
PRESENTATION = {
    "fill",
    "fill-opacity",
    "fill-rule",
    "opacity",
    "stroke",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-opacity",
    "stroke-width",
    "text-anchor",
}


@dataclass
class Chart:
    """An SVG element, what it says in a line, and its legend: (name, series number from 1), each
    with a line or a block of its colour."""

    title: str
    description: str
    mark: str = "line"
    svg: Markup = field(default_factory=Markup)
    legend: list[tuple[str, int]] = field(default_factory=list)


def epochs(
    title: str, description: str, curves: Mapping[str, Sequence[float]], shares: bool = False
) -> Chart:
    """A line a curve over the epochs, from 1; `shares` are told in percent."""
    chart = Chart(title, description)
    with _axes(chart) as axes:
        for i, (name, values) in enumerate(curves.items()):
            axes.plot(range(1, len(values) + 1), values, **_line(i))
            chart.legend.append((name, i + 1))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if shares:
            _in_percent(axes.yaxis)
    return chart


def reliability(title: str, description: str, bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Accuracy against confidence, a bar a bin; a calibrated classifier's bars end on the
    diagonal (the reliability diagram of DeGroot and Fienberg, 1983)."""
    filled = [b for b in bins if b["accuracy"] is not None]
    legend = [("accuracy", 1), ("mean confidence", 2)]
    chart = Chart(title, description, "block", legend=legend)
    with _axes(chart) as axes:
        axes.bar(
            [b["low"] for b in filled],
            [b["accuracy"] for b in filled],
            [(b["high"] - b["low"]) * 0.92 for b in filled],
            align="edge",
            color=SERIES[0],
        )
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=DASHES[1])
        axes.plot(
            [b["confidence"] for b in filled],
            [b["confidence"] for b in filled],
            linestyle="none",
            marker="o",
            markersize=4.5,
            color=SERIES[1],
        )
        axes.set_xlim(min(b["low"] for b in filled) if filled else 0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        _in_percent(axes.xaxis, axes.yaxis)
    return chart


def precision_coverage(
    title: str, description: str, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Chart:
    """Precision against coverage, both shares, a line a class."""
    chart = Chart(title, description)
    lowest = 1.0
    with _axes(chart) as axes:
        for i, (name, (coverage, precision)) in enumerate(curves.items()):
            axes.plot(coverage, precision, drawstyle="steps-pre", **_line(i))
            chart.legend.append((name, i + 1))
            lowest = min(lowest, float(precision.min()))
        axes.set_xlim(0, 1)
        axes.set_ylim(max(0.0, lowest - 0.05), 1.01)
        axes.set_xlabel("coverage: share accepted of those given this label")
        _in_percent(axes.xaxis, axes.yaxis)
    return chart


def histogram(
    title: str, description: str, edges: np.ndarray, stacks: Mapping[str, np.ndarray]
) -> Chart:
    """Counts between `edges`, confidences, the stacks on each other."""
    chart = Chart(title, description, "block")
    bottom = np.zeros(len(edges) - 1)
    with _axes(chart) as axes:
        for i, (name, counts) in enumerate(stacks.items()):
            width = np.diff(edges) * 0.92
            axes.bar(edges[:-1], counts, width, bottom, align="edge", color=SERIES[i])
            bottom = bottom + counts
            chart.legend.append((name, i + 1))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("confidence")
        axes.xaxis.grid(False)
        _in_percent(axes.xaxis)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return chart


def intervals(
    title: str, description: str, rows: Mapping[str, tuple[float, float, float]]
) -> Chart:
    """A row a name, the first on top: a share, and the line from its low to its high."""
    chart = Chart(title, description)
    with _axes(chart) as axes:
        for i, (share, low, high) in enumerate(rows.values()):
            axes.plot([low, high], [i, i], color=SERIES[0])
            axes.plot([share], [i], marker="o", color=SERIES[0])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.yaxis.grid(False)
        _in_percent(axes.xaxis)
    return chart


def _in_percent(*scales: Any) -> None:
    for scale in scales:
        scale.set_major_formatter(PercentFormatter(1))


def _line(i: int) -> dict[str, Any]:
    """Colour and dashes of series `i`: told apart without colours too."""
    return {"color": SERIES[i % len(SERIES)], "linestyle": DASHES[i % len(DASHES)]}


@contextmanager
def _axes(chart: Chart) -> Iterator[Any]:
    """Axes to draw on; they become the chart's SVG when the block ends."""
    style: Any = {**STYLE, "svg.hashsalt": chart.title}
    with matplotlib.rc_context(style):
        figure = Figure(SIZE, layout="constrained")
        yield figure.subplots()
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    chart.svg = _for_page(svg.getvalue(), chart)


def _for_page(svg: str, chart: Chart) -> Markup:
    root = ElementTree.fromstring(svg)
    prefix = re.sub(r"\W+", "-", chart.title.lower())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for name, value in attributes.items():
            name = name.rpartition("}")[2]
            if name == "style":
                for one in filter(None, value.split(";")):
                    key, _, text = one.partition(":")
                    if key.strip() in PRESENTATION:
                        element.set(key.strip(), _coloured(text.strip()))
            elif name == "id":
                element.set("id", f"{prefix}-{value}")
            elif name in ("href", "clip-path"):
                element.set(name, value.replace("#", f"#{prefix}-"))
            elif name not in ("version", "width", "height") or element is not root:
                element.set(name, _coloured(value))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    title, description = ElementTree.Element("title"), ElementTree.Element("desc")
    title.text, title.attrib["id"] = chart.title, f"{prefix}-title"
    description.text, description.attrib["id"] = chart.description, f"{prefix}-desc"
    root[:0] = [title, description]
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    root.set("class", "chart")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _coloured(value: str) -> str:
    return PAGE_COLOURS.get(value.lower(), value)
