"""Measured values of a Transformers log are taken out of a state, and put back into it."""

from trainerd.training.integrations.transformers_measured import apart, together


def test_measured_values_are_kept_apart_and_come_back():
    state = {
        "max_steps": 3,
        "log_history": [{"loss": 1.0}, {"eval_loss": 2.0, "eval_runtime": 0.3, "eval_steps_per_second": 9}],
    }
    rest, found = apart(state)
    assert rest == {"max_steps": 3, "log_history": [{"loss": 1.0}, {"eval_loss": 2.0}]}
    assert [value for _, value in found] == [0.3, 9]
    assert together(rest, found) == state


def test_a_text_of_such_a_name_is_no_measurement():
    assert apart({"container_runtime": "docker"}) == ({"container_runtime": "docker"}, [])
