"""The report that a privacy officer signs: report.json with its schema, report.html and report.pdf.

All come from one `findings.AuditReport` and nothing else, without a clock: the same report gives the same bytes.
"""

from __future__ import annotations

import json

from anonlib.audit.findings import AuditReport
from anonlib.audit.report.page import REQUIRED, ExampleImage, require, write_html, write_pdf

__all__ = ["REQUIRED", "ExampleImage", "require", "write_html", "write_json", "write_pdf", "write_schema"]


def write_json(report: AuditReport) -> bytes:
    """report.json."""
    return (report.model_dump_json(indent=2) + "\n").encode()


def write_schema() -> bytes:
    """report.schema.json: the JSON schema that report.json follows."""
    return (json.dumps(AuditReport.model_json_schema(), indent=1, sort_keys=True) + "\n").encode()
