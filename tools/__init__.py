"""The scripts and what they share. Importing this quietens notices of mmcv and torch that users can't mend."""
import logging
import warnings

warnings.filterwarnings('ignore', message='On January 1, 2023, MMCV will release')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # mmcv's operators ask for a CUDA compiler
