"""The report that a privacy officer signs on: report.json, its schema, report.html and report.pdf.

All come from one `findings.Report` and nothing else. There is no clock in them: the same report gives the same bytes.
"""

from __future__ import annotations

import json
from importlib import resources

from anonlib.audit.findings import AuditReport
from anonlib.audit.report.page import ExampleImage, write_html
from anonlib.audit.report.pdf import write_pdf

__all__ = ["SCHEMA", "ExampleImage", "schema_bytes", "write_html", "write_json", "write_pdf"]

SCHEMA = "report.schema.json"


def write_json(report: AuditReport) -> bytes:
    """report.json."""
    return (report.model_dump_json(indent=2) + "\n").encode()


def schema_bytes() -> bytes:
    """report.schema.json as it ships: what a machine checks report.json against."""
    return (resources.files(__name__) / SCHEMA).read_bytes()


def schema_of_model() -> bytes:
    """What the shipped schema must be."""
    return (json.dumps(AuditReport.model_json_schema(), indent=1, sort_keys=True) + "\n").encode()
