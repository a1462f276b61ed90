"""A shape on which Ray would wait for ever is refused, machine by machine; a cluster on its way is waited for."""

from __future__ import annotations

import pytest

from anonlib.config import JobConfig, RayConfig
from anonlib.errors import ConfigError, JobError
from anonlib.execution import capacity
from anonlib.execution.capacity import ClusterNode, NodeWatch, actor_capacity, check_shape, fits_here

HEAD = ClusterNode(cpus=0)


@pytest.mark.parametrize(
    ("num_gpus", "machines", "fit"),
    [
        (0, [ClusterNode(1.5), ClusterNode(1.5)], 2),
        (0, [HEAD], 0),
        (0.4, [ClusterNode(4, 1)], 2),  # 0.8 of the GPU; a third would need 0.2 of another
        (0.4, [ClusterNode(8, 2)], 4),  # not the five that two GPUs add up to
        (1 / 3, [ClusterNode(4, 1)], 3),
        (0.25, [ClusterNode(2, 1)], 2),  # the CPUs are used up first
        (2, [ClusterNode(4, 1), ClusterNode(4, 3)], 1),
        (1, [ClusterNode(8), ClusterNode(1, 4)], 1),  # the CPUs are where the GPUs are not
    ],
)
def test_a_part_of_a_gpu_is_of_one_gpu_and_whole_ones_are_of_one_machine(
    num_gpus: float, machines: list[ClusterNode], fit: int
) -> None:
    assert actor_capacity(machines, num_gpus) == fit
    if fit:
        check_shape(fit, num_gpus, machines)
        check_shape(None, num_gpus, machines)
    advice = f"ray.actors is {fit + 1}, .* {f'give at most {fit}' if fit else 'it has no room for one'}"
    with pytest.raises(ConfigError, match=advice):
        check_shape(fit + 1, num_gpus, machines)


def test_a_job_that_leaves_it_open_needs_no_ray_for_a_small_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert fits_here(RayConfig(), 1 << 20)
    assert not fits_here(RayConfig(), 1 << 50)
    for decided in (RayConfig(actors=1), RayConfig(num_gpus=0.5), RayConfig(address="here:1")):
        assert not fits_here(decided, 1 << 20)
    monkeypatch.setenv("RAY_ADDRESS", "here:1")
    assert not fits_here(RayConfig(), 1 << 20)


def test_gpus_that_ray_cannot_give_are_refused_with_the_job_and_the_shards_of_an_actor_share_its_memory() -> None:
    places = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "work"}}

    def shard_mib(**ray: float) -> float:
        return JobConfig.model_validate(places | {"ray": ray, "limits": {"memory_mib": 512}}).shard_bytes / (1 << 20)

    for num_gpus in (1.5, 0.00001):
        with pytest.raises(ValueError, match=r"whole ones, not"):
            shard_mib(num_gpus=num_gpus)
    assert (shard_mib(actors=1), shard_mib(actors=0, shards=4), shard_mib(shards=2)) == (512, 512, 256)
    assert (shard_mib(num_gpus=0.5), shard_mib(num_gpus=1, shards=8), shard_mib(actors=0, num_gpus=1)) == (128, 64, 512)


def test_a_cluster_without_a_machine_is_waited_for_and_ends_the_job_if_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, room, told = [100.0], [1], list[str]()
    monkeypatch.setattr(capacity.time, "monotonic", lambda: now[0])
    watch = NodeWatch(lambda: room[0], 60, told.append)

    def look(machines: int, after: float) -> None:
        room[0], now[0] = machines, now[0] + after
        watch.look()

    look(1, 1000)
    assert told == [], "a slow unit is waited for"
    look(0, 5)
    look(0, 59)
    look(1, 5)
    assert "no machine that" in told[0] and "goes on" in told[1] and len(told) == 2
    look(0, 5)
    with pytest.raises(JobError, match=r"no machine .* for 60 s; what is finished is kept"):
        look(0, 60)
