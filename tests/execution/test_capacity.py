"""A shape on which Ray would wait for ever is refused, machine by machine; a cluster on its way is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, JobError
from anonlib.execution import capacity
from anonlib.execution.capacity import ClusterNode, actor_capacity, check_shape, fail_when_no_nodes, wait_for_room

HEAD = ClusterNode(cpus=0)
LOOK_S = 0.01


def test_an_actor_takes_a_cpu_of_one_machine() -> None:
    check_shape(2, 0, [ClusterNode(2)])
    check_shape(None, 0, [HEAD, ClusterNode(1)])
    with pytest.raises(ConfigError, match=r"ray.actors is 3, each with 1 CPU, .* has 2 CPUs .*; give at most 2"):
        check_shape(3, 0, [ClusterNode(2)])
    with pytest.raises(ConfigError, match="give at most 2"):
        check_shape(3, 0, [ClusterNode(1.5), ClusterNode(1.5)])


def test_no_room_at_all_is_refused_also_where_no_number_is_given() -> None:
    for machines in ([], [HEAD], [ClusterNode(0.5), ClusterNode(0.5)]):
        with pytest.raises(ConfigError, match=r"an actor needs 1 CPU, .*; it has no room for one"):
            check_shape(None, 0, machines)
    with pytest.raises(ConfigError, match=r"1 CPU and 0\.5 GPUs of one machine"):
        check_shape(None, 0.5, [ClusterNode(8)])


@pytest.mark.parametrize(
    ("num_gpus", "machines", "fit"),
    [
        (0.5, [ClusterNode(4, 1)], 2),
        (0.4, [ClusterNode(4, 1)], 2),  # 0.8 of the GPU; a third would need 0.2 of another
        (0.4, [ClusterNode(8, 2)], 4),  # not the five that two GPUs add up to
        (0.6, [ClusterNode(4, 1), ClusterNode(4, 1)], 2),
        (1 / 3, [ClusterNode(4, 1)], 3),
        (0.25, [ClusterNode(2, 1)], 2),  # the CPUs are used up first
        (1, [ClusterNode(4, 1), ClusterNode(4, 2)], 3),
        (2, [ClusterNode(4, 1), ClusterNode(4, 3)], 1),
        (4, [ClusterNode(8, 2), ClusterNode(8, 2)], 0),
        (1, [ClusterNode(8), ClusterNode(1, 4)], 1),  # the CPUs are where the GPUs are not
    ],
)
def test_a_part_of_a_gpu_is_of_one_gpu_and_whole_ones_are_of_one_machine(
    num_gpus: float, machines: list[ClusterNode], fit: int
) -> None:
    assert actor_capacity(machines, num_gpus) == fit
    if fit:
        check_shape(fit, num_gpus, machines)
    with pytest.raises(ConfigError):
        check_shape(fit + 1, num_gpus, machines)


@given(
    st.one_of(st.just(0.0), st.floats(0.01, 1), st.integers(1, 8).map(float)),
    st.lists(st.tuples(st.integers(0, 16), st.integers(0, 8)), max_size=5),
)
def test_what_fits_never_takes_more_than_there_is(num_gpus: float, sizes: list[tuple[int, int]]) -> None:
    for cpus, gpus in sizes:
        fit = ClusterNode(cpus, gpus).room(num_gpus)
        assert 0 <= fit <= cpus and round(fit * num_gpus, 3) <= gpus
    assert actor_capacity([ClusterNode(*one) for one in sizes], num_gpus) == sum(
        ClusterNode(*one).room(num_gpus) for one in sizes
    )


@pytest.mark.parametrize(("num_gpus", "said"), [(1.5, "whole ones, not 1.5"), (0.00001, "steps of 0.0001")])
def test_gpus_that_ray_cannot_give_are_refused_with_the_job(num_gpus: float, said: str) -> None:
    places = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "work"}}
    with pytest.raises(ValueError, match=said):
        JobConfig.model_validate(places | {"ray": {"num_gpus": num_gpus}})


def test_the_shards_of_an_actor_share_its_memory() -> None:
    places = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "work"}}

    def shard_mib(**ray: float) -> float:
        return JobConfig.model_validate(places | {"ray": ray, "limits": {"memory_mib": 512}}).shard_bytes / (1 << 20)

    assert (shard_mib(actors=1), shard_mib(actors=0, shards=4), shard_mib(shards=2)) == (512, 512, 256)
    assert (shard_mib(num_gpus=0.5), shard_mib(num_gpus=1, shards=8), shard_mib(actors=0, num_gpus=1)) == (128, 64, 512)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that runs while the code sleeps; holds the time."""
    now = [100.0]
    monkeypatch.setattr(capacity.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(capacity.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def growing(clock: list[float], *after: tuple[float, ClusterNode]) -> list[ClusterNode]:
    return [machine for second, machine in after if clock[0] - 100 >= second]


def test_machines_on_their_way_are_waited_for(clock: list[float]) -> None:
    said: list[str] = []
    plan = ((0, HEAD), (30, ClusterNode(4)), (60, ClusterNode(4)))
    assert wait_for_room(8, 0, lambda: growing(clock, *plan), 300, said.append) == 8
    assert clock[0] - 100 == pytest.approx(60, abs=3)
    assert said == ["the cluster has room for 0 of 8 actors; waiting up to 300 s for machines"]


def test_what_fits_begins_when_the_wait_is_over_and_that_is_said(clock: list[float]) -> None:
    said: list[str] = []
    assert wait_for_room(8, 0, lambda: growing(clock, (0, HEAD), (30, ClusterNode(5))), 300, said.append) == 5
    assert clock[0] - 100 == pytest.approx(300)
    assert said[-1] == "5 of 8 actors begin; the others follow when the cluster has room for them"


def test_a_number_that_is_not_given_begins_with_the_first_machine(clock: list[float]) -> None:
    assert wait_for_room(None, 1, lambda: growing(clock, (0, HEAD), (30, ClusterNode(4, 2))), 300, lambda _: None) == 2
    assert clock[0] - 100 == pytest.approx(30, abs=3)


def test_a_cluster_that_stays_empty_is_refused(clock: list[float]) -> None:
    with pytest.raises(ConfigError, match="no room for one"):
        wait_for_room(2, 0, lambda: [HEAD], 60, lambda _: None)
    assert clock[0] - 100 == pytest.approx(60)


def test_a_cluster_that_is_ready_is_not_waited_for(clock: list[float]) -> None:
    calls: Iterator[list[ClusterNode]] = iter([[ClusterNode(4)]] * 3)
    assert wait_for_room(2, 0, lambda: next(calls), 300, pytest.fail) == 4
    assert clock[0] == 100


def rows_after(event: threading.Event) -> Iterator[int]:
    yield 1
    event.wait(10)
    yield 2


def test_rows_come_through_in_order_and_so_does_what_they_raise() -> None:
    def rows() -> Iterator[int]:
        yield from range(3)
        raise LookupError("lost")

    said: list[str] = []
    taken: list[int] = []
    with pytest.raises(LookupError, match="lost"):
        for row in fail_when_no_nodes(rows(), lambda: 1, 0, said.append, LOOK_S):
            taken.append(row)
    assert taken == [0, 1, 2] and said == []


def test_a_slow_row_is_waited_for_as_long_as_there_is_a_machine() -> None:
    came, looks = threading.Event(), []

    def room() -> int:
        looks.append(1)
        if len(looks) == 5:
            came.set()
        return 1

    said: list[str] = []
    assert list(fail_when_no_nodes(rows_after(came), room, 0, said.append, LOOK_S)) == [1, 2]
    assert len(looks) >= 5 and said == []


def test_machines_that_come_back_in_time_are_waited_for_and_both_is_said() -> None:
    came, answers = threading.Event(), iter([0, 0, 0, 1])

    def room() -> int:
        answer = next(answers, 1)
        if answer:
            came.set()
        return answer

    said: list[str] = []
    assert list(fail_when_no_nodes(rows_after(came), room, 60, said.append, LOOK_S)) == [1, 2]
    assert len(said) == 2 and "no machine left" in said[0] and "goes on" in said[1]


def test_a_cluster_without_a_machine_for_too_long_ends_the_job_with_a_sentence() -> None:
    never = threading.Event()
    said: list[str] = []
    with pytest.raises(JobError, match=r"no machine .* for 0\.05 s; what is finished is kept"):
        list(fail_when_no_nodes(rows_after(never), lambda: 0, 0.05, said.append, LOOK_S))
    never.set()
    assert len(said) == 1


def test_a_reader_that_stops_lets_the_rows_end() -> None:
    came, closed = threading.Event(), threading.Event()

    def rows() -> Iterator[int]:
        try:
            yield from rows_after(came)
        finally:
            closed.set()

    reading = fail_when_no_nodes(rows(), lambda: 1, 0, lambda said: None, LOOK_S)
    assert next(reading) == 1
    reading.close()
    came.set()
    assert closed.wait(10)
