# The miniature, inductive: 15 classes with masks, 5 without. bash tools/quickstart.sh, or, where that has been:
#   bash dist_train.sh configs/miniature/inductive.py work_dirs/mine 1
_base_ = ['../_base_/models/clip_rc_mini.py', '../_base_/datasets/miniature.py', '../_base_/default_runtime.py',
          '../_base_/schedules/miniature.py']
log_config = dict(interval=20)
