"""The arguments of `bash tests/gpu.sh`, with `echo` in the place of Python."""
import pytest


def test_folders_are_those_of_the_caller(run, tmp_path):
    """Also when the command is called from another folder than the repository."""
    (tmp_path / 'wheels').mkdir()
    (tmp_path / 'wheels/one.whl').touch()
    done = run('tests/gpu.sh', '--wheels', 'wheels', '--out', 'results', '--dry-run', cwd=tmp_path,
               env={'PYTHON': 'echo'})
    assert f'{tmp_path}/wheels/one.whl\n' in done.stdout
    assert f'tests/gpu.py --out {tmp_path}/results --dry-run\n' in done.stdout
    assert '-m gpu' in (tmp_path / 'results/tests.txt').read_text()


@pytest.mark.parametrize(('arguments', 'error'), [
    (['--out', '--dry-run'], '--out needs a folder'), (['--wheels'], '--wheels needs a folder'),
    (['--wheels', 'nowhere'], 'no wheels in nowhere'), (['--fast'], 'unknown argument --fast')])
def test_wrong_arguments(run, arguments, error):
    done = run('tests/gpu.sh', *arguments, check=False, env={'PYTHON': 'echo'})
    assert (done.returncode, done.stdout, done.stderr) == (2, '', f'error: {error}\n')


def test_help(run):
    lines = run('tests/gpu.sh', '--help').stdout.splitlines()
    assert lines[0].startswith('bash tests/gpu.sh [') and '--dry-run' in lines[-1]
