"""Runs commands in this process: quicker than a process of their own by the seconds of the imports."""
import importlib.util
import sys

import pytest

from tests.conftest import REPOSITORY, forget_loggers
from tools.engine import errors


@pytest.fixture
def call(monkeypatch, capfd, cache):
    """Calls a command, `script` relative to the repository; returns its stdout and stderr together."""
    def call(script: str, *arguments) -> str:
        spec = importlib.util.spec_from_file_location('script_under_test', REPOSITORY / script)
        module = importlib.util.module_from_spec(spec)
        before = sys.path[:]
        spec.loader.exec_module(module)
        sys.path[:] = before
        forget_loggers()
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        capfd.readouterr()
        errors.run(module.main)
        output = capfd.readouterr()
        return output.out + output.err

    monkeypatch.setenv('CLIPRC_CACHE', str(cache))
    yield call
    forget_loggers()
