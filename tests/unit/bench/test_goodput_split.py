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
