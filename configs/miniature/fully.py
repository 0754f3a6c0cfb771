# The miniature, fully supervised: all 20 classes with masks, scored on the same seen and unseen lists.
#   bash dist_train.sh configs/miniature/fully.py work_dirs/mine_fully 1
_base_ = './inductive.py'
model = dict(novel_class=[])
