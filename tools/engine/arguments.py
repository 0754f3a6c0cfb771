"""Arguments that several commands have. Light: no torch, no mmcv."""
from argparse import ArgumentParser, ArgumentTypeError

IS_RUN = ('Python code that is executed, together with the modules named in its custom_imports: never use a config '
          'from a source that you do not trust')


def positive_int(text: str) -> int:
    """Read a count from the command line (an argument's `type`)."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f'{text!r} is not a positive integer')
    return int(text)


def key_value(text: str) -> str:
    """Check a KEY=VALUE option (an argument's `type`); `config.load_config` reads the value."""
    if '=' not in text:
        raise ArgumentTypeError(f'KEY=VALUE is needed, not {text!r}')
    return text


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `config.load_config` reads."""
    parser.add_argument('config', help=f'config file; {IS_RUN}')
    parser.add_argument('--data-root', help="the dataset's folder, instead of the config's")
    add_settings_argument(parser)


def add_settings_argument(parser: ArgumentParser) -> None:
    """Add the option whose settings override those of a config."""
    parser.add_argument('--cfg-options', '--options', nargs='+', action='extend', type=key_value, default=[],
                        metavar='KEY=VALUE',
                        help='override settings of the config, for example model.decode_head.num_layers=2')


def add_launch_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `process.start` reads."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes are started; dist_train.sh sets pytorch')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by older launchers')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto',
                        help='auto: a GPU if there is one, else the CPU')
    parser.add_argument('--gpu-id', type=int, help='without a launcher: the GPU to use')


def add_hang_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `hang.watch` reads."""
    parser.add_argument('--hang-timeout', type=int, default=600, metavar='SECONDS',
                        help='print the stacks of a process that makes no progress for this long; 0: never '
                             '(default: 600)')
    parser.add_argument('--end-on-hang', action='store_true', help='end the process after such a report')
