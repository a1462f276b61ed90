"""Anonymize the faces of large image datasets before release, and keep the record that proves it."""

__version__ = "0.1.0"
