"""The scripts and what they share. Importing this quietens notices of mmcv and torch that users can't mend."""
import importlib.util
import logging
import os
import sys
import warnings

if importlib.util.find_spec('mmcv') is None:
    raise SystemExit('error: this Python has no environment for CLIP-RC. Make and use it:\n'
                     '    bash tools/setup_env.sh && source .venv/bin/activate')


def say_stopped(kind: type[BaseException] = KeyboardInterrupt, *rest) -> None:
    """Ctrl-C is no error and needs no trace, not even in the midst of imports. Of several processes the launcher says
    it."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, *rest)
    elif 'TORCHELASTIC_RUN_ID' not in os.environ:
        sys.stderr.write('stopped.\n')


sys.excepthook = say_stopped
warnings.filterwarnings('ignore', message='On January 1, 2023, MMCV will release')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # mmcv's operators ask for a CUDA compiler
