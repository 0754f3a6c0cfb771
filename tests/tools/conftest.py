"""Runs commands in this process: quicker than a process of their own by the seconds of the imports."""
import pytest


@pytest.fixture
def output(call):
    """Calls a command, see `call`; returns its stdout and stderr together."""
    def output(script: str, *arguments) -> str:
        done = call(script, *arguments)
        return done.stdout + done.stderr
    return output
