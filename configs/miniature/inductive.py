_base_ = ['../_base_/models/clip_rc_mini.py', '../_base_/datasets/miniature.py', '../_base_/default_runtime.py',
          '../_base_/schedules/miniature.py']
