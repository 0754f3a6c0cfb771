# PASCAL Context, protocol (b): 59 classes without background; the ten of ZS3 are unseen. Used by OTSeg.
_base_ = './context60_512x512.py'
protocol = 'context59'
data = dict(
    train=dict(type='PascalContext59'), val=dict(type='PascalContext59'), test=dict(type='PascalContext59'))
