"""The report as a browser shows it, light and dark."""

import shutil
import struct
import subprocess
import zlib

import pytest

from chaos.report import write_report
from tests.support.chaos_results import results_with_one_restart

pytestmark = pytest.mark.browser

LIMIT_S = 60
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def screenshot(page, path, *flags):
    subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags),
            *(f"--user-data-dir={path.parent / 'profile'}", "--window-size=900,900"),
            *(f"--screenshot={path}", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    return colours(path.read_bytes())


def colours(png):
    """Return the colours of a PNG of 8 bits a channel, and the pixel in its corner."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind in {2, 6}) == (8, True)
    channels = 3 if kind == 2 else 4
    data, at = b"", 8
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if name == b"IDAT" else b""
        at += 12 + length
    raw, stride = zlib.decompress(data), width * channels
    before, found, corner = bytearray(stride), set(), ()
    for row in range(height):
        start = row * (stride + 1)
        line = _unfiltered(raw[start], raw[start + 1 : start + 1 + stride], before, channels)
        found |= {tuple(line[x : x + 3]) for x in range(0, stride, channels)}
        before = line
        corner = tuple(line[:3]) if row == 0 else corner
    return corner, found


def _unfiltered(kind, line, before, channels):
    out = bytearray(line)
    for i, value in enumerate(out):
        left = out[i - channels] if i >= channels else 0
        up = before[i]
        corner = before[i - channels] if i >= channels else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        elif kind == 4:
            guess = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
        else:
            guess = 0
        out[i] = (value + guess) & 0xFF
    return out


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_curves_and_the_restart_are_painted_in_both_schemes(tmp_path):
    results, folders = results_with_one_restart(tmp_path)
    page = write_report(tmp_path, results, title="t", summary="s", folders=folders)
    back, light = screenshot(page, tmp_path / "light.png")
    assert back == (255, 255, 255)
    assert {(0x9D, 0xB8, 0xE8), (0x1C, 0x4F, 0xA8), (0xD9, 0x82, 0x2B)} <= light
    back, dark = screenshot(page, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert back == (0x12, 0x16, 0x1C)
    assert {(0x4B, 0x6A, 0xA3), (0x9C, 0xC0, 0xFF), (0xF0, 0xA4, 0x58)} <= dark
