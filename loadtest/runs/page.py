"""The report as one HTML page that needs nothing else: no scripts, no fonts, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from loadtest.runs.plot import Axes, Line, plot

Report = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #667; --paper: #fff; --rule: #dde; --card: #f6f7fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9ec; --dim: #9aa; --paper: #14161a; --rule: #333842; --card: #1c1f25; }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1400px; padding: 24px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 26px } h2 { font-size: 17px; margin: 0 0 8px }
.dim { color: var(--dim); margin: 4px 0 20px }
.verdict { padding: 12px 16px; border-radius: 8px; color: #fff; background: #00664a; font-weight: 600 }
.verdict.no { background: #b3261e }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px;
  margin-top: 16px }
section { background: var(--card); border-radius: 8px; padding: 16px; overflow-x: auto }
svg { width: 100%; height: auto; display: block }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif }
.grid { stroke: var(--rule); stroke-width: 1 }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0 0; padding: 0;
  font-size: 13px }
.legend i { display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle }
path.c0 { stroke: #2f7fd1 } i.c0 { background: #2f7fd1 }
path.c1 { stroke: #d9541e } i.c1 { background: #d9541e }
path.c2 { stroke: #00946b } i.c2 { background: #00946b }
path.c3 { stroke: #b65fa4 } i.c3 { background: #b65fa4 }
path.c4 { stroke: #c98a00 } i.c4 { background: #c98a00 }
path.c5 { stroke: #7a7f8a } i.c5 { background: #7a7f8a }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--rule) }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600; color: var(--dim) }
"""

_LATENCIES = {
    "ack": "answer to committed ack",
    "board": "answer to leaderboard",
    "join": "connect to joined",
    "late": "the generator's own lateness",
}
_GROUPS = {"nodes": "nodes", "generators": "generators", "postgres": "PostgreSQL"}
_LOOPS = {"loop_hold_ms": "longest hold of a node's loop", "loop_lag_ms": "most that a node's loop was late"}
_PERCENTS = ("p50", "p90", "p99", "p99.9", "p100")


def page(report: Report) -> str:
    """The document, from the report as `loadtest.runs.report` makes it."""
    title = f"Load: {report['scenario']}"
    cards = "".join(
        f"<section><h2>{escape(heading)}</h2>{body}</section>" for heading, body in _cards(report)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{_STYLE}</style></head><body><h1>{escape(title)}</h1>{_opening(report)}"
        f'<div class="cards">{cards}</div></body></html>\n'
    )


def _opening(report: Report) -> str:
    machine, proof = report["machine"], report["proof"]
    where = (
        f"{report['totals']['joined']:,} players in {report['sessions']:,} sessions · "
        f"nodes: {report['nodes']} · "
        f"generators: {report['generators']}, on the same {machine['processors']} processors · "
        f"Python {machine['python']} · {machine['system']}"
    )
    rows = f"{proof['rows']:,} rows of the database" if proof["rows"] else "the nodes' results"
    if report["proven"]:
        verdict = (
            f'<p class="verdict">Proven: {proof["acknowledged"]:,} acknowledged answers against {rows}; '
            f"scores, ranks and the last leaderboards of {proof['leaderboards']:,} players agree.</p>"
        )
    else:
        broken = ", ".join(f"{kind} {count:,}" for kind, count in proof["broken"].items())
        verdict = f'<p class="verdict no">Not proven: {escape(broken or "nobody played")}</p>'
    flat = report["flat"]
    if flat is not None:
        verdict += f'<p class="verdict{"" if flat["holds"] else " no"}">{escape(flat_sentence(flat))}</p>'
    return f'<p class="dim">{escape(report["fields"]["description"])}<br>{escape(where)}</p>{verdict}'


def _cards(report: Report) -> list[tuple[str, str]]:
    rows: Sequence[Report] = report["series"]
    milliseconds = Axes(y_name="milliseconds", log_y=True)
    mebibytes = [_line(rows, f"{key}_mib", name) for key, name in _GROUPS.items()]
    return [
        (
            "Latency over time",
            plot(
                [
                    _durations(rows, "ack", "p50", "ack, p50"),
                    _durations(rows, "ack", "p99", "ack, p99"),
                    _durations(rows, "board", "p99", "leaderboard, p99"),
                    _durations(rows, "join", "p99", "join, p99"),
                    _durations(rows, "late", "p99", "generator late, p99"),
                ],
                milliseconds,
            ),
        ),
        ("Latency by percentile", _curves(report)),
        (
            "Players connected",
            plot([_line(rows, "open", "players who are in")], Axes(y_name="players")),
        ),
        (
            "Answers a second",
            plot(
                [_line(rows, "answers_sent", "sent"), _line(rows, "acks", "acknowledged")],
                Axes(y_name="answers"),
            ),
        ),
        ("Frames a second", plot([_line(rows, "frames", "received by players")], Axes(y_name="frames"))),
        (
            "Processor",
            plot(
                [
                    *(_line(rows, f"{key}_cpu", name) for key, name in _GROUPS.items()),
                    _line(rows, "loop_busy_share", "busiest loop of a node"),
                ],
                Axes(y_name="processors"),
            ),
        ),
        (
            "Memory",
            plot([*mebibytes, _line(rows, "tcp_mib", "the kernel's TCP buffers")], Axes(y_name="MiB")),
        ),
        (
            "PostgreSQL: commits",
            plot(
                [
                    _line(rows, "commit_p50_ms", "commit, p50"),
                    _line(rows, "commit_p99_ms", "commit, p99"),
                ],
                milliseconds,
            ),
        ),
        (
            "The nodes' loops, most of a minute each",
            plot(
                [
                    _line(rows, "loop_lag_ms", "late"),
                    _line(rows, "loop_hold_ms", "held by one task"),
                    _line(rows, "loop_gap_ms", "between two looks at the sockets"),
                ],
                milliseconds,
            ),
        ),
        (
            "Least time between two leaderboards, as announced",
            plot(
                [_durations(rows, "tick", "p50", "p50"), _durations(rows, "tick", "p100", "most")],
                milliseconds,
            ),
        ),
        ("While all sessions played", _steady(report["steady"])),
        ("Several nodes", _nodes(report)),
        *(("Faults", _faults(report["faults"])) for _ in range(bool(report["faults"]))),
        ("The whole run", _figures(report["latency_ms"], _LATENCIES)),
        ("Memory while all sessions played", _memory(report["memory_mib"])),
        ("What else happened", _counts(report)),
    ]


def _line(rows: Sequence[Report], key: str, name: str) -> Line:
    return Line(name, [(row["s"], row[key]) for row in rows if key in row], gap=5)


def _durations(rows: Sequence[Report], key: str, percent: str, name: str) -> Line:
    points = [(row["s"], row[f"{key}_ms"][percent]) for row in rows if f"{key}_ms" in row]
    return Line(name, points, gap=5)


def _curves(report: Report) -> str:
    """The further right, the rarer: each step of the axis is a tenth of what the step before left over."""

    def place(percent: float) -> float:
        return -math.log10(max(1 - percent / 100, 1e-4))

    ticks = [(place(percent), f"p{percent:g}") for percent in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)]
    lines = [
        Line(name, [(place(percent), value) for percent, value in report["curves_ms"][key]])
        for key, name in _LATENCIES.items()
    ]
    return plot(lines, Axes("share of all", "milliseconds", log_y=True, x_ticks=ticks))


def _steady(steady: Report | None) -> str:
    if steady is None:
        return "<p>There was no such part.</p>"
    rows = [
        ("seconds", f"{steady['seconds']:,}"),
        ("answers sent a second", f"{steady['answers_sent_per_s']:,.0f}"),
        ("answers acknowledged a second", f"{steady['acks_per_s']:,.0f}"),
        ("frames received a second", f"{steady['frames_per_s']:,.0f}"),
    ]
    if "ack_p99_by_second_ms" in steady:
        of_seconds = steady["ack_p99_by_second_ms"]
        rows += [
            ("p99 of the ack, a median second", f"{of_seconds['median']:,.1f} ms"),
            ("p99 of the ack, the worst second", f"{of_seconds['most']:,.1f} ms"),
        ]
    rows += [
        (f"processors used, {name}", f"{steady[f'{key}_cpu']:.2f}")
        for key, name in _GROUPS.items()
        if f"{key}_cpu" in steady
    ]
    names = {**_LATENCIES, "tick": "leaderboard to leaderboard, as announced"}
    return _figures(steady["duration_ms"], names) + _pairs(rows)


def _nodes(report: Report) -> str:
    cluster, spread = report["cluster"], report["spread"]
    rows: list[tuple[str, str]] = []
    if cluster is not None:
        rows += [
            ("joins that were sent on to another node", f"{cluster['moved']:,}"),
            ("players whose session was handed to another node", f"{cluster['handed']:,}"),
        ]
        if cluster["at_owner"] is not None:
            rows.append(
                ("players who ended at the node that ran their session last", f"{cluster['at_owner']:,}")
            )
        rows += [(f"players at {place}", f"{count:,}") for place, count in cluster["players_by_node"].items()]
    for each in spread["questions"]:
        heard = f"question {each['question']}, {each['players']:,} players: from the first to the last"
        rows.append((heard, f"{each['ms']:,.1f} ms"))
    if spread["end"] is not None:
        rows.append(("the end: from the first to the last", f"{spread['end']['ms']:,.1f} ms"))
        rows.append(("the end: last answer to the last", _ms(spread["end"]["after_last_answer_ms"])))
    return _pairs(rows)


def _faults(faults: Sequence[Report]) -> str:
    heads = (
        *("fault", "node", "at", "ready again", "affected", "back", "99 % back after", "first ack after"),
        *("away, p50 / p99 / most", "answer to ack", "of the others"),
    )
    body = ""
    for each in faults:
        took = "-" if each["restart_s"] is None else f"{each['restart_s']:,.1f} s"
        cells = [each["kind"], each["node"], f"{each['at_s']:,.1f} s", took]
        cells += [f"{each['affected']:,}", f"{each['back']:,}", _ms(each["back_99_ms"])]
        cells += [_ms(each["first_ack_ms"])]
        cells += [
            " / ".join(_ms(each[name][percent]) for percent in ("p50", "p99", "p100"))
            for name in ("away_ms", "ack_ms", "beside_ack_ms")
        ]
        body += "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><tr>{head}</tr>{body}</table>"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _memory(memory_mib: Mapping[str, Mapping[str, float]]) -> str:
    if not memory_mib:
        return "<p>Too short to tell.</p>"
    body = "".join(
        f"<tr><td>{name}</td><td>{values['start']:,.0f}</td><td>{values['end']:,.0f}</td>"
        f"<td>{values['per_min']:+,.2f}</td></tr>"
        for key, name in _GROUPS.items()
        if (values := memory_mib.get(key)) is not None
    )
    return (
        "<table><tr><th></th><th>at its start, MiB</th><th>at its end, MiB</th><th>MiB a minute</th></tr>"
        f"{body}</table>"
    )


def flat_sentence(flat: Mapping[str, Any]) -> str:
    """What the report says of memory that must not grow."""
    if flat["growth"] is None:
        return "The nodes' memory is not known for long enough to say whether it is flat."
    verdict = "It is flat." if flat["holds"] else "It is not flat."
    return (
        f"The nodes' memory was {flat['before']:,.1f} MiB and then {flat['after']:,.1f} MiB in the last two "
        f"times {flat['seconds']:,} s: {flat['growth']:+.1%}. {verdict}"
    )


def _figures(durations_ms: Mapping[str, Mapping[str, float | None]], names: Mapping[str, str]) -> str:
    head = "".join(f"<th>{name if name != 'p100' else 'most'}</th>" for name in _PERCENTS)
    body = ""
    for key, name in names.items():
        values = durations_ms[key]
        told = [values[each] for each in _PERCENTS]
        cells = "".join(f"<td>{'-' if value is None else f'{value:,.1f}'}</td>" for value in told)
        body += f"<tr><td>{escape(name)}, ms</td>{cells}</tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _counts(report: Report) -> str:
    totals, peaks = report["totals"], report["peaks"]
    rows: list[tuple[str, str]] = [
        ("answers acknowledged", f"{totals['acks']:,}"),
        ("frames received", f"{totals['frames']:,}"),
        ("players who came back", f"{totals['reconnects']:,}"),
        ("answers without a reply", f"{report['proof']['unsettled']:,}"),
        ("commits of PostgreSQL within, p50 and p99", _bounds(report["commit_ms"])),
    ]
    rows += [(name, f"{peaks[key]:,.1f} ms") for key, name in _LOOPS.items() if key in peaks]
    rows += [
        (f"most memory, {name}", f"{peaks[f'{key}_mib']:,.0f} MiB")
        for key, name in _GROUPS.items()
        if f"{key}_mib" in peaks
    ]
    rows += [(f"connections ended: {reason}", f"{count:,}") for reason, count in report["ends"].items()]
    rows += [(f"refused: {code}", f"{count:,}") for code, count in report["refused"].items()]
    return _pairs(rows)


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>"


def _bounds(commit_ms: Mapping[str, float | None]) -> str:
    return ", ".join("-" if value is None else f"{value:g} ms" for value in commit_ms.values())
