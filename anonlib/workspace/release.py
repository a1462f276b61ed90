"""A release as its maker and its auditor read and change it: what lies there, and the audit beside it."""

from __future__ import annotations

from collections.abc import Mapping

from anonlib.storage import Storage
from anonlib.verification.certificate import AuditStatement
from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, STATEMENT


def publish_audit(release: Storage, secret: bytes, files: Mapping[str, bytes], failed: list[str]) -> AuditStatement:
    """Write an audit's files, then the statement that vouches for them; an earlier audit is removed first.

    `failed`: the names of the policy's failed lines. Raises ValueError for a file that no audit has, and StorageError.
    """
    remove_audit(release)
    for path, data in files.items():
        if path not in AUDIT_FILES:
            raise ValueError(f"{path} is none of the files of an audit")
        release.create(path, data)
    statement = AuditStatement.of(release.read(CERTIFICATE), files, failed).sign(secret)
    release.create(STATEMENT, statement.to_bytes())
    return statement


def remove_audit(release: Storage) -> None:
    """Take an audit back, its statement first, as a change of the release must."""
    for path in (STATEMENT, *AUDIT_FILES):
        release.delete(path)
