"""A browser that watches a job which dies and comes back, of a real supervisor."""

import os
import re
import signal

import pytest

from tests.support.chromium import Chromium, chromium_program
from tests.support.daemon_bench import Bench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium_program() is None, reason="there is no chromium: apt-get install chromium"),
]

SCRIPT = """
import time, torch, trainerd
torch.manual_seed(3)
model = torch.nn.Linear(2, 1)
opt = torch.optim.SGD(model.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4000, 2)), batch_size=1)
with trainerd.session(seed=1) as session:
    session.track(model=model, opt=opt)
    for epoch in session.epochs(50):
        for (x,) in session.batches(loader):
            loss = (model(x) - 1).pow(2).mean()
            opt.zero_grad(); loss.backward(); opt.step()
            session.log(loss=loss.item(), **{"<img src=x onerror=window.pwned=1>": 1.0})
            if session.step % 50 == 0:
                print("<script>window.pwned = 1</script>", flush=True)
            time.sleep(0.02)
"""


class PageBench(Bench):
    def command(self, state=None):
        return [*super().command(state), "--web", "127.0.0.1:0", "--web-actions"]


@pytest.fixture
def bench(tmp_path):
    bench = PageBench(tmp_path)
    yield bench
    bench.clean_up()


def test_a_death_and_a_return_are_seen_by_a_browser_that_watches(bench, tmp_path):
    (bench.work / "train.py").write_text(SCRIPT)
    spec = f"command: [python, train.py]\nworkdir: {bench.work}\ncheckpoint:\n  every: {{steps: 20}}\n"
    bench.start()
    (bench.jobs / "watched.yaml").write_text(spec)
    address = bench.wait_for(
        lambda: re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", bench.output.read_text()), "the address"
    )[0]
    home = address.partition("?")[0]
    with Chromium(tmp_path / "profile") as browser:
        browser.open(home)
        assert "HTTP ERROR 401" in browser.ask("document.body.innerText")
        browser.messages.clear()
        browser.open(address)
        assert browser.ask("location.search") == "", "the token leaves the address"
        browser.wait_for("document.getElementById('link').textContent === 'live'")
        browser.wait_for("document.body?.innerText.includes('running')")
        browser.open(f"{home}job/watched")
        browser.wait_for("!!document.querySelector('.uplot canvas')")
        browser.wait_for("document.body?.innerText.includes('step-0000000')")
        browser.ask("window.mark = true")
        os.kill(bench.get("/v1/jobs/watched")["pids"][0], signal.SIGKILL)
        browser.wait_for("document.body?.innerText.includes('was killed by SIGKILL')")
        browser.wait_for("document.body?.innerText.includes('attempt 2 runs')")
        browser.wait_for("document.body?.innerText.includes('back at work')")
        assert browser.ask("window.mark"), "the page was not loaded again meanwhile"
        browser.wait_for("document.querySelectorAll('#metric option').length === 2")
        assert browser.ask("window.pwned === undefined")
        assert "<script>window.pwned" in browser.ask("document.getElementById('log').textContent")
        browser.resize(400, 800)
        assert browser.ask("document.documentElement.scrollWidth") <= 400
        browser.ask(
            "[...document.querySelectorAll('button')].find((each) => each.textContent === 'stop').click()"
        )
        browser.wait_for("document.body?.innerText.includes('stopped')")
        assert browser.problems() == []
    assert bench.stop() == 0, "an open page does not keep the supervisor from leaving"
