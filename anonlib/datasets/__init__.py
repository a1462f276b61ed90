"""Shard formats: how photographs and their fields are read, and written back in the same shape.

A release must be usable in the place of its input, so the order, keys, file names and format stay, and only
fields that the job allows pass. Every sample that cannot be read is still a sample, with the reason.
"""

from anonlib.datasets.base import Dataset, Sample, Shard, ShardWriter
from anonlib.datasets.fields import label
from anonlib.datasets.opening import open_dataset

__all__ = ["Dataset", "DatasetError", "Sample", "Shard", "ShardWriter", "label", "open_dataset"]
