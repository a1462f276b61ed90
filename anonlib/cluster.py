"""Where a job runs, and what it may hold and spend: the job file's `ray` and `limits`.

What a run means depends on no more of it than the limits of a single image.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

SHARDS_OF_A_GPU = 4
"""Shards that an actor with a GPU works on at once, so that the GPU computes while others decode and paste."""
MACHINE_LIMITS = ("chunk", "memory_mib")
"""Limits that say how much is held at once; results do not depend on them, so runs may differ in them."""


class LimitsConfig(BaseModel):
    """What a single image may cost before it is quarantined unread, and what a worker may hold at once.

    `image_seconds` is what decoding it may take. `chunk`: images that a shard works on together; `memory_mib`: photos
    that a worker holds, as files and as pixels, over all its shards; one that needs more is worked on alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_mpx: float = Field(default=100.0, gt=0)
    image_mib: float = Field(default=128.0, gt=0)
    image_seconds: float = Field(default=60.0, gt=0)
    chunk: int = Field(default=32, ge=1, le=512)
    memory_mib: float = Field(default=512.0, gt=0)


class PriceConfig(BaseModel):
    """What an hour of one CPU and of one GPU costs you, in a currency of yours; both 0: costs are not estimated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_hour: float = Field(default=0.0, ge=0)
    gpu_hour: float = Field(default=0.0, ge=0)

    @property
    def known(self) -> bool:
        return self.cpu_hour > 0 or self.gpu_hour > 0


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
    price: PriceConfig = PriceConfig()

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
