"""Where a job runs and on how much of it: the job file's `ray`. What a run means does not depend on it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

SHARDS_OF_A_GPU = 4
"""Shards that an actor with a GPU works on at once, so that the GPU computes while others decode and paste."""


class RayConfig(BaseModel):
    """Where it runs. `actors: 0` is the serial twin in this process, `null` as many as the cluster has room for.

    `num_gpus`: of each actor, a part of one GPU or whole ones. `shards`: that an actor works on at once, in threads
    which share its networks; `null` is 1, with a GPU SHARDS_OF_A_GPU. `wait_s`: how long a cluster at an address may
    take until it has room for all actors, then those begin that it has room for; and how long it may have no machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = Field(default=None, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    shards: int | None = Field(default=None, ge=1, le=64)
    wait_s: float = Field(default=300.0, ge=0)
    address: str | None = None

    @field_validator("num_gpus")
    @classmethod
    def _part_or_whole(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"an actor gets a part of one GPU or whole ones, not {value:g}")
        if 0 < value < 0.0001:
            raise ValueError(f"Ray shares GPUs out in steps of 0.0001, so {value:g} is none")
        return value

    @property
    def shards_at_once(self) -> int:
        """How many shards a worker works on at once; the serial twin on one."""
        if self.actors == 0:
            return 1
        return self.shards or (SHARDS_OF_A_GPU if self.num_gpus else 1)
