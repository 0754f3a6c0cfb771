# The miniature, fully supervised: masks of all 20 classes; scores of the same seen and unseen classes.
#   bash dist_train.sh configs/miniature/fully.py work_dirs/mine_fully 1
_base_ = './inductive.py'
model = dict(novel_class=[])
