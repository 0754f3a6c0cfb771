# The miniature, inductive: masks of 15 classes, 5 classes are unseen. After bash tools/quickstart.sh, on a CPU:
#   bash dist_train.sh configs/miniature/inductive.py work_dirs/mine 1
_base_ = ['../_base_/models/clip_rc_mini.py', '../_base_/datasets/miniature.py', '../_base_/default_runtime.py',
          '../_base_/schedules/miniature.py']
log_config = dict(interval=20)
