"""Who may start, and why the others wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainerd.contract.policy import Resources
from trainerd.supervisor.scheduler import Capacity, Request, SlotOwner, machine_capacity, schedule

GIB = 1024**3
MACHINE = Capacity(cpus=4.0, gpus=2, memory_bytes=8 * GIB)


def request(name, *, cpus=1.0, gpus=0, memory_bytes=None, priority=0, since=0.0):
    return Request(name, Resources(gpus, cpus, memory_bytes), priority, since)


def granted(answer):
    return [name for name, _ in answer.grants]


def test_those_who_fit_start_in_the_order_of_their_arrival():
    requests = [request("c", since=3), request("a", since=1), request("b", since=2)]
    assert granted(schedule(Capacity(2.0), [], requests)) == ["a", "b"]


def test_a_higher_priority_goes_first():
    requests = [request("early", since=1), request("urgent", since=2, priority=5)]
    assert granted(schedule(Capacity(1.0), [], requests)) == ["urgent"]


def test_a_large_job_is_not_starved_by_small_ones_behind_it():
    requests = [request("large", cpus=4, since=1), request("small", cpus=1, since=2)]
    answer = schedule(MACHINE, [SlotOwner(Resources(cpus=2))], requests)
    assert granted(answer) == []
    assert answer.waits == {
        "large": "waits for 4 cpus (2 free)",
        "small": "waits for 1 cpu (0 free), behind large",
    }


def test_a_job_that_needs_nothing_of_what_is_waited_for_may_pass():
    requests = [request("large", cpus=1, gpus=2, since=1), request("small", cpus=1, since=2)]
    answer = schedule(MACHINE, [SlotOwner(Resources(gpus=1, cpus=1), (0,))], requests)
    assert granted(answer) == ["small"]
    assert answer.waits == {"large": "waits for 2 gpus (1 free)"}


def test_each_gpu_is_given_once():
    requests = [request("a", gpus=1, since=1), request("b", gpus=1, since=2)]
    assert schedule(MACHINE, [], requests).grants == (("a", (0,)), ("b", (1,)))
    assert schedule(MACHINE, [SlotOwner(Resources(gpus=1), (0,))], requests).grants == (("a", (1,)),)


def test_memory_counts():
    answer = schedule(
        MACHINE, [SlotOwner(Resources(memory_bytes=6 * GIB))], [request("a", memory_bytes=4 * GIB)]
    )
    assert answer.waits == {"a": "waits for 4.00 GiB of memory (2.00 GiB free)"}


def test_what_the_machine_can_never_give_is_a_misfit_not_a_wait():
    requests = [request("a", cpus=5), request("b", gpus=3), request("c", memory_bytes=9 * GIB), request("d")]
    answer = schedule(MACHINE, [], requests)
    assert answer.misfits == {
        "a": "it asks for 5 cpus and the machine has 4",
        "b": "it asks for 3 gpus and the machine has 2",
        "c": "it asks for 9.00 GiB of memory and the machine has 8.00 GiB",
    }
    assert granted(answer) == ["d"]


def test_tenths_of_a_cpu_add_up():
    requests = [request(f"job-{n}", cpus=0.1, since=n) for n in range(11)]
    assert len(schedule(Capacity(1.0), [], requests).grants) == 10


sizes = st.builds(
    lambda cpus, gpus, since, priority: (cpus, gpus, since, priority),
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0]),
    st.integers(0, 3),
    st.floats(0, 100),
    st.integers(-1, 1),
)


@given(st.lists(sizes, max_size=12))
def test_nothing_is_promised_twice_and_everybody_gets_an_answer(wanted):
    requests = [
        request(f"job-{n}", cpus=cpus, gpus=gpus, since=since, priority=priority)
        for n, (cpus, gpus, since, priority) in enumerate(wanted)
    ]
    answer = schedule(MACHINE, [], requests)
    by_name = {one.name: one for one in requests}
    assert sum(by_name[name].resources.cpus for name in granted(answer)) <= MACHINE.cpus
    given_gpus = [gpu for _, gpus in answer.grants for gpu in gpus]
    assert len(given_gpus) == len(set(given_gpus))
    assert {*granted(answer), *answer.waits, *answer.misfits} == set(by_name)
    if set(by_name) - set(answer.misfits):
        assert answer.grants, "an empty machine always starts somebody"


def test_this_machine_has_something_to_give():
    capacity = machine_capacity()
    assert capacity.cpus >= 1
    assert capacity.memory_bytes > 0


def test_no_more_jobs_than_max_jobs_run_and_the_others_say_so():
    capacity = Capacity(cpus=64, max_jobs=2)
    requests = [Request(name, Resources(cpus=1), since_wall_s=n) for n, name in enumerate(("a", "b", "c"))]
    answer = schedule(capacity, [SlotOwner(Resources(cpus=1))], requests)
    assert [name for name, _ in answer.grants] == ["a"]
    assert answer.waits["b"] == "waits for one of the jobs that run to end (max_jobs)"
    assert answer.waits["c"].endswith("behind b")


def test_the_gpus_that_are_configured_are_the_ones_that_are_given():
    capacity = Capacity(cpus=64, gpus=2, gpu_indices=(1, 3))
    requests = [Request("a", Resources(cpus=1, gpus=1)), Request("b", Resources(cpus=1, gpus=1))]
    answer = schedule(capacity, [SlotOwner(Resources(cpus=1, gpus=1), (1,))], requests)
    assert answer.grants == (("a", (3,)),)
    assert answer.waits["b"] == "waits for 1 gpu (0 free)"


def test_a_job_that_needs_no_cpu_passes_those_that_wait_for_cpus():
    requests = [Request("large", Resources(cpus=4)), Request("none", Resources(cpus=0), since_wall_s=1.0)]
    answer = schedule(Capacity(cpus=4), [SlotOwner(Resources(cpus=2))], requests)
    assert [name for name, _ in answer.grants] == ["none"]
