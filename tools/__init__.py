"""The scripts and what they share. Importing this quietens notices of mmcv and torch that users can't mend."""
import importlib.util
import logging
import warnings

if importlib.util.find_spec('mmcv') is None:
    raise SystemExit('error: this Python has no environment for CLIP-RC. Make and use it:\n'
                     '    bash tools/setup_env.sh && source .venv/bin/activate')

warnings.filterwarnings('ignore', message='On January 1, 2023, MMCV will release')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # mmcv's operators ask for a CUDA compiler
