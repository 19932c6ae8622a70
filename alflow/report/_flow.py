"""Figures about the work: where the candidates of each source went, and what each round cost."""

from __future__ import annotations

from collections import defaultdict

from markupsafe import Markup

from alflow.ledger import Stream
from alflow.report._data import Fate, ReportData, SourceFlow
from alflow.report._style import FATE_COLOURS, MUTED, PAPER, POOLED, STREAM_COLOURS, figure, to_svg

_MAX_SOURCES = 12


def flow_figure(data: ReportData) -> Markup | None:
    """One bar per source, divided by what became of its candidates."""
    flows = sorted(data.flows, key=lambda flow: -flow.total)
    if not flows:
        return None
    shown = flows[:_MAX_SOURCES]
    if len(flows) > _MAX_SOURCES:
        shown.append(_sum(flows[_MAX_SOURCES:], "other sources"))
    if len(flows) > 1:
        shown.append(_sum(flows, "all"))
    with figure(10.4, 1.15 + 0.46 * len(shown)) as made:
        axes = made.subplots()
        for row, flow in enumerate(shown):
            left = 0.0
            for fate in Fate:
                count = flow.fates.get(fate, 0)
                if not count:
                    continue
                share = count / flow.total
                axes.barh(row, share, left=left, height=0.66, color=FATE_COLOURS[fate], edgecolor=PAPER, linewidth=1.0)
                if share > 0.012 * len(str(count)) + 0.008:
                    axes.text(left + share / 2, row, f"{count}", ha="center", va="center", color=PAPER, fontsize=9)
                left += share
            axes.text(1.01, row, f"{flow.total}", va="center", ha="left", color=MUTED)
        axes.set_yticks(range(len(shown)), [flow.source for flow in shown])
        axes.tick_params(axis="y", labelcolor="#1c2430")
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        present = [fate for fate in Fate if any(flow.fates.get(fate) for flow in flows)]
        handles = [axes.barh(0, 0, color=FATE_COLOURS[fate])[0] for fate in present]
        made.legend(
            handles,
            [str(fate) for fate in present],
            loc="outside upper left",
            ncols=7,
            handlelength=0.9,
            handleheight=0.9,
        )
        return to_svg(made, "flow", label="What became of the candidates of each source")


def _sum(flows: list[SourceFlow], name: str) -> SourceFlow:
    fates: dict[Fate, int] = defaultdict(int)
    for flow in flows:
        for fate, count in flow.fates.items():
            fates[fate] += count
    return SourceFlow(source=name, fates=dict(fates))


def rounds_figure(data: ReportData) -> Markup | None:
    """Labels per round by stream, and seconds per round by step."""
    if not data.rounds:
        return None
    index = [summary.index for summary in data.rounds]
    streams = [s for s in Stream if any(summary.labels.get(s) for summary in data.rounds)]
    steps: dict[str, float] = defaultdict(float)
    for summary in data.rounds:
        for step, seconds in summary.seconds.items():
            steps[step] += seconds
    longest = sorted(steps, key=lambda step: -steps[step])[:5]
    with figure(10.4, 3.2) as made:
        left, right = made.subplots(1, 2)
        base = [0.0] * len(index)
        for stream in streams:
            counts = [summary.labels.get(stream, 0) for summary in data.rounds]
            left.bar(index, counts, bottom=base, color=STREAM_COLOURS[stream], width=0.72, label=str(stream))
            base = [b + c for b, c in zip(base, counts, strict=True)]
        left.set_title("Labels per round, by stream")
        base = [0.0] * len(index)
        hues = (*(c for c in STREAM_COLOURS.values() if c != POOLED),)
        for step, colour in zip([*longest, "other"], [*hues[:5], POOLED], strict=False):
            heights = [
                summary.seconds.get(step, 0.0)
                if step != "other"
                else sum(t for name, t in summary.seconds.items() if name not in longest)
                for summary in data.rounds
            ]
            if any(heights):
                right.bar(index, heights, bottom=base, color=colour, width=0.72, label=step)
                base = [b + t for b, t in zip(base, heights, strict=True)]
        right.set_title("Seconds per round, by step")
        for axes in (left, right):
            axes.set_xlabel("round")
            axes.set_xticks(index if len(index) <= 15 else index[:: max(1, len(index) // 10)])
            axes.grid(visible=False, axis="x")
            axes.spines["left"].set_visible(False)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), handlelength=0.9, handleheight=0.9)
        return to_svg(made, "rounds", label="Labels and seconds per round")
