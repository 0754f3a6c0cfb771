# PASCAL Context, protocol (c): 59 classes; the indices of the unseen ones belong to another order of the classes, so
# these ten are unseen instead of ZS3's. Used by Cascade-CLIP and later papers.
_base_ = './context60_512x512.py'
protocol = 'context59misindexed'
unseen = ['aeroplane', 'bed', 'bedclothes', 'boat', 'bottle', 'car', 'cloth', 'cow', 'keyboard', 'plate']
dataset = dict(type='PascalContext59', unseen=unseen)
data = dict(train=dataset, val=dataset, test=dataset)
