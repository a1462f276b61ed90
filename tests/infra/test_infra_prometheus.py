"""infra/prometheus asks only for metrics and labels that exist, in a language that Prometheus speaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from anonlib.execution.telemetry import METRICS

RULES = Path(__file__).parents[2] / "infra" / "prometheus" / "alerts.yaml"
PREFIX = "ray_"
RAYS = {"NodeAddress", "SessionName", "Version", "WorkerId", "Component"}
"""Labels that Ray's exporter puts on every sample."""
PLANTED = {
    "no PromQL": ("sum by (stage) (ray", "sum by (stage (ray", "not PromQL"),
    "a metric that is not exported": ("anonlib_quarantined_total", "anonlib_quarantine_total", "is not exported"),
    "a label that a metric has not": ('part="wait"', 'parts="wait"', "has no label parts"),
    "a counter that only rises": (
        'increase(ray_anonlib_faces_total{stage="render"}[1h])',
        'ray_anonlib_faces_total{stage="render"}',
        "only ever rises",
    ),
}


def problems(text: str) -> list[str]:
    """Sentences about a file of rules; none if it is sound."""
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    names = [rule["alert"] for rule in rules]
    found = [f"{name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    return found + [f"{rule['alert']}: {sentence}" for rule in rules for sentence in _rule(rule)]


def _rule(rule: dict[str, Any]) -> Iterator[str]:
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
    if isinstance(node, promql.VectorSelector):
        yield from _selector(node, grouped, over_time)
    elif isinstance(node, promql.MatrixSelector):
        yield from _selector(node.vector_selector, grouped, over_time)
    elif isinstance(node, promql.AggregateExpr):
        yield from _expression(node.expr, grouped | set(node.modifier.labels if node.modifier else ()), over_time)
    elif isinstance(node, promql.Call):
        for one in node.args:
            yield from _expression(one, grouped, over_time or node.func.name in ("increase", "rate"))
    elif isinstance(node, promql.BinaryExpr):
        yield from _expression(node.lhs, grouped, over_time)
        yield from _expression(node.rhs, grouped, over_time)
    elif isinstance(node, promql.ParenExpr):
        yield from _expression(node.expr, grouped, over_time)


def _selector(node: Any, grouped: set[str], over_time: bool) -> Iterator[str]:
    metric = METRICS.get(node.name.removeprefix(PREFIX))
    if metric is None or not node.name.startswith(PREFIX):
        yield f"{node.name} is not exported"
        return
    known = {"stage", "method", *metric.labels} | RAYS
    asked = grouped | {one.name for one in node.matchers.matchers}
    yield from (f"{node.name} has no label {one}" for one in sorted(asked - known))
    if metric.kind == "counter" and not over_time:
        yield f"{node.name} only ever rises, so ask for its increase"
    if metric.kind == "gauge" and over_time:
        yield f"{node.name} is a gauge, which has no increase"


def test_the_alerts_are_sound() -> None:
    assert problems(RULES.read_text()) == []


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str) -> None:
    old, new, said = PLANTED[mistake]
    text = RULES.read_text()
    assert old in text
    found = problems(text.replace(old, new, 1))
    assert any(said in one for one in found), found
