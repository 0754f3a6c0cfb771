"""Arguments that several commands have. Light: no torch, no mmcv."""
from argparse import ArgumentParser, ArgumentTypeError

IS_RUN = ('Python code, which is run, and so are the modules that it names in custom_imports: take no config from '
          'strangers')


def positive_int(text: str) -> int:
    """The `type` of a command line's count."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f'{text!r} is no whole number from 1 up')
    return int(text)


def key_value(text: str) -> str:
    """The `type` of a KEY=VALUE option; `config.load_config` reads the value."""
    if '=' not in text:
        raise ArgumentTypeError(f'KEY=VALUE is needed, not {text!r}')
    return text


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `config.load_config` reads."""
    parser.add_argument('config', help=f'config file; {IS_RUN}')
    parser.add_argument('--data-root', help="the dataset's folder, instead of the config's")
    parser.add_argument('--cfg-options', nargs='+', action='extend', type=key_value, default=[], metavar='KEY=VALUE',
                        help='override settings of the config, for example model.decode_head.num_layers=2')
    parser.add_argument('--options', nargs='+', action='extend', type=key_value, default=[], metavar='KEY=VALUE',
                        help='older name of --cfg-options')


def add_launch_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `process.start` reads."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='who started the processes; dist_train.sh says pytorch')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by older launchers')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto',
                        help='auto: a GPU where there is one, else the CPU')
