"""What a soak leaves of a run that broke an invariant can be played again."""

from chaos.invariants import Strike
from chaos.scenario import load
from chaos.soak import Lane, Soak, SoakOptions
from chaos.waiting import Interruption
from chaos.workloads import SOAK_SIZES


def test_the_faults_of_a_run_become_a_scenario_at_the_same_steps(tmp_path):
    said = []
    options = SoakOptions(tmp_path / "soak", SOAK_SIZES["tiny"], seed=3, duration_s=1, mtbf_s=1)
    soak = Soak(options, Interruption(), said.append)
    strikes = [
        Strike("rank-sigkill", "soak-0002", 1, 41, "", 1.0),
        Strike("shim-sigkill", "soak-0002", 2, -1, "", 2.0),
    ]
    soak._leave_replay(Lane(0, job="soak-0002", seed=30_002, strikes=strikes))
    path = tmp_path / "soak" / "replay-soak-0002.yaml"
    assert said == [f"replay:   python -m chaos --scenario {path} --seed 30002"]
    scenario = load(path)
    assert scenario.workload == SOAK_SIZES["tiny"]
    assert [(one.fault, one.step) for one in scenario.strikes] == [("rank-sigkill", 42)]
