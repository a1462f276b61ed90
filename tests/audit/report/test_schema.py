"""report.json and the schema that it is checked against."""

from __future__ import annotations

import json

import jsonschema
import pytest

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import schema_bytes, schema_of_model, write_json
from tests.support import findings


def test_the_shipped_schema_is_the_model() -> None:
    assert schema_bytes() == schema_of_model(), "write schema_of_model() to anonlib/audit/report/report.schema.json"
    assert json.loads(schema_bytes()) == AuditReport.model_json_schema()


def test_a_report_fits_the_schema_and_comes_back_the_same() -> None:
    report = findings.report()
    jsonschema.validate(json.loads(write_json(report)), json.loads(schema_bytes()))
    assert AuditReport.model_validate_json(write_json(report)) == report


def test_a_key_that_nobody_knows_does_not_fit() -> None:
    document = json.loads(write_json(findings.report())) | {"name of the worst person": "N. N."}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(schema_bytes()))
