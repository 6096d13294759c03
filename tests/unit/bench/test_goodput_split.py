"""Where the time of a run went that was killed."""

from bench.goodput import where_time_went


def test_what_a_run_needed_beyond_its_useful_steps_is_named_in_full():
    began_s, step_s = 100.0, 0.05
    moments = [102.0 + step_s * number for number in range(10)]
    killed = [moments[-1] + 0.01]
    moments += [moments[-1] + 0.55 + step_s * number for number in range(6)]
    took_s = moments[-1] + 0.3 - began_s
    useful = len(moments) - 2
    struck = {
        "moments": moments,
        "killed": killed,
        "began_s": began_s,
        "took_s": took_s,
        "again": 2,
        "steps_per_s": useful / took_s,
    }
    assert where_time_went(struck, 0.04) == (
        "  of 3.5 s, 0.6 useful; 1 return of 0.50 s (median): 0.5 s, 2 steps run again: 0.1 s, "
        "steps of 50.0 ms, not 40.0: 0.1 s, start: 2.0 s, end: 0.3 s"
    )


def test_a_run_that_no_kill_fell_into_had_no_return():
    moments = [2.0 + 0.05 * number for number in range(10)]
    struck = {"moments": moments, "killed": [], "began_s": 0.0, "took_s": 2.5, "again": 0, "steps_per_s": 4.0}
    assert "0 returns of 0.00 s (median): 0.0 s, 0 steps run again: 0.0 s" in where_time_went(struck, 0.05)
