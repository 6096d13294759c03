"""What `trainerd run --web` refuses before anything is started."""

import pytest


@pytest.mark.parametrize("address", ["7878", "localhost", "unix:", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(trainerd, address, tmp_path):
    said = trainerd("run", "--web", address, code=1).stderr
    assert "--web" in said
    assert "such as" in said
    assert not (tmp_path / ".trainerd").exists()


def test_actions_without_a_page_are_a_mistake(trainerd):
    assert "--web-actions needs --web" in trainerd("run", "--web-actions", code=2).stderr
