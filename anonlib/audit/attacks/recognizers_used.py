"""Which recognizers a method has used: what it is judged by must not be what it was made with.

A method that was trained against a recognizer deceives that one best, and a re-check that throws out what one still
knows leaves what only others know. Model cards say who took part in training.
"""

from __future__ import annotations

from anonlib.config import CLASS_METHODS, SYNTHESIS_METHODS, VECTOR_METHODS, JobConfig
from anonlib.models.requirements import PIPELINE_RECOGNIZER, VERIFIERS

TRAINED_WITH = (PIPELINE_RECOGNIZER, "mobileface")
"""The recognizers whose gradients ksame-net and embedding were trained with (their model cards)."""


def used_by(config: JobConfig) -> frozenset[str]:
    """Recognizers that a job's method, its training or its re-check used; a redaction uses none."""
    method = config.method
    if method.name not in SYNTHESIS_METHODS:
        return frozenset()
    drawn = method.name in CLASS_METHODS | VECTOR_METHODS and method.texture_name == "ksame-net"
    trained = TRAINED_WITH if drawn or method.name == "embedding" else ()
    return frozenset((PIPELINE_RECOGNIZER, *VERIFIERS, *trained))
