"""Anonymize the faces of large image datasets before release, and keep the record that proves it."""

__version__ = "0.2.0"
