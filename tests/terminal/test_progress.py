"""Progress where there is no terminal: a line every tenth of a stage, and after a minute without one."""

from __future__ import annotations

import pytest

from attribug.terminal import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Bars() as bars:
        bars.begin({"training": 1000, "scoring": 3, "explaining": 0})
        for _ in range(1000):
            bars.advance("training", 1)
        told = lines(capsys)
        assert len(told) == 10
        assert [int(line.split()[2]) for line in told] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
        bars.advance("scoring", 3)
        assert len(lines(capsys)) == 1
        bars.advance("explaining", 1)
        assert lines(capsys) == []


def test_a_long_stage_is_not_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Bars() as bars:
        bars.begin({"training": 100_000})
        for second in range(0, 301, 10):
            now[0] = float(second)
            bars.advance("training", 1)
    told = lines(capsys)
    assert [line.rpartition(" ")[2] for line in told] == ["1:10", "2:20", "3:30", "4:40"]
