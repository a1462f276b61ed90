"""infra/prometheus asks only for metrics and labels that exist, in a language that Prometheus speaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from anonlib.execution.telemetry import METRICS

RULES = Path(__file__).parents[2] / "infra" / "prometheus" / "alerts.yaml"
PREFIX = "ray_"
RAYS = {"NodeAddress", "SessionName", "Version", "WorkerId", "Component"}
"""Labels that Ray's exporter puts on every sample."""


def problems(text: str) -> Iterator[str]:
    """Sentences about a file of rules; none if it is sound."""
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    if len({rule["alert"] for rule in rules}) < len(rules):
        yield "two alerts have one name"
    for rule in rules:
        if not re.fullmatch(r"\d+[mh]", rule.get("for", "")):
            yield "it does not wait before it calls somebody"
        if rule.get("labels", {}).get("severity") not in ("info", "warning", "critical"):
            yield "it has no severity"
        if set(rule.get("annotations", ())) != {"summary", "action"}:
            yield "it needs a summary and an action"
        try:
            yield from _expression(promql.parse(rule["expr"]), set(), False)
        except ValueError as error:
            yield f"not PromQL: {error}"


def _expression(node: Any, grouped: set[str], over_time: bool) -> Iterator[str]:
    """What is wrong below a node, whose labels must include `grouped`; `over_time` within increase() or rate()."""
    below: list[Any] = []
    match node:
        case promql.VectorSelector():
            yield from _selector(node, grouped, over_time)
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
        yield from _expression(inner, grouped, over_time)


def _selector(node: Any, grouped: set[str], over_time: bool) -> Iterator[str]:
    metric = METRICS.get(node.name.removeprefix(PREFIX))
    if metric is None or not node.name.startswith(PREFIX):
        yield f"{node.name} is not exported"
        return
    wanted = grouped | {matcher.name for matcher in node.matchers.matchers}
    yield from (f"{node.name} has no label {label}" for label in wanted - {"stage", "method", *metric.labels} - RAYS)
    if metric.kind == "counter" and not over_time:
        yield f"{node.name} only ever rises, so ask for its increase"
    if metric.kind == "gauge" and over_time:
        yield f"{node.name} is a gauge, which has no increase"


def test_the_alerts_are_sound() -> None:
    assert list(problems(RULES.read_text())) == []
