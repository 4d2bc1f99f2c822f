"""Fixtures and options of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Leakline, Programs, find_leakline
from suites import Suite
from terminal import Terminal


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="as often as the promises ask for: 20 counts, 50 kills, ...",
    )


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def leakline(tmp_path: Path) -> Leakline:
    return Leakline(find_leakline(), tmp_path)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    columns, rows = getattr(request, "param", (80, 24))
    terminal = Terminal(tmp_path, columns, rows)
    try:
        yield terminal
    finally:
        terminal.close()
