# The miniature, transductive: self-training from the middle of the inductive run, half as long.
#   bash dist_train.sh configs/miniature/transductive.py work_dirs/mine_st 1 --load-from work_dirs/mine/iter_600.pth
_base_ = './inductive.py'
model = dict(self_training=True)
runner = dict(max_iters=600)
