"""infra/prometheus asks only for metrics and labels that exist, in a language that Prometheus speaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from anonlib.execution.telemetry import METRICS

PROMETHEUS = Path(__file__).parents[2] / "infra" / "prometheus"
RULES, BOARD = PROMETHEUS / "alerts.yaml", PROMETHEUS / "dashboard.json"
RAYS = {"NodeAddress", "SessionName", "Version", "WorkerId", "Component"}
"""Labels that Ray's exporter puts on every sample."""


def selectors(node: Any, grouped: set[str], over_time: bool) -> Iterator[tuple[Any, set[str], bool]]:
    """Each selector below a node, the labels that it is grouped by, and whether it is within increase() or rate()."""
    below: list[Any] = []
    match node:
        case promql.VectorSelector():
            yield node, grouped, over_time
        case promql.MatrixSelector():
            below = [node.vector_selector]
        case promql.AggregateExpr():
            below, grouped = [node.expr], grouped | set(node.modifier.labels if node.modifier else ())
        case promql.Call():
            below, over_time = list(node.args), over_time or node.func.name in ("increase", "rate")
        case promql.BinaryExpr():
            below = [node.lhs, node.rhs]
        case promql.ParenExpr():
            below = [node.expr]
    for inner in below:
        yield from selectors(inner, grouped, over_time)


def check(expression: str, shown: AbstractSet[str] = frozenset()) -> set[str]:
    """The metrics that an expression of PromQL asks for; fails if it asks for others, or by labels that they lack."""
    names = set()
    for node, grouped, over_time in selectors(promql.parse(expression), set(shown), False):
        assert node.name.startswith("ray_")
        name = node.name.removeprefix("ray_").removesuffix("_bucket")
        metric, buckets = METRICS[name], node.name.endswith("_bucket")
        assert buckets == (metric.kind == "histogram"), f"{node.name}: a histogram is asked for its buckets"
        wanted = grouped | {matcher.name for matcher in node.matchers.matchers}
        assert wanted <= {"stage", "method", *metric.labels} | RAYS | ({"le"} if buckets else set()), node.name
        assert over_time == (metric.kind != "gauge"), f"{node.name}: a counter only rises, a gauge has no increase"
        names.add(name)
    return names


def test_the_alerts_wait_say_what_to_do_and_ask_for_what_is_exported() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        assert re.fullmatch(r"\d+[mh]", rule["for"]) and set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        check(rule["expr"])


def test_the_dashboard_shows_every_metric_and_asks_for_what_is_exported() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    asked: set[str] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == "${source}" and panel["description"]
        for target in panel["targets"]:
            asked |= check(target["expr"], set(re.findall(r"{{(\w+)}}", target["legendFormat"])))
    assert asked == set(METRICS)
