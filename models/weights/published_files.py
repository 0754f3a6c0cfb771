"""The files that tools/download.py fetches, by their names. Needs nothing but Python: it reads this file by its path.

Every command takes such a name where it takes a checkpoint or a CLIP file (`files.locate`).
"""
FOLDER = 'pretrained'  # in the repository

MODELS = {  # OpenAI's CLIP ViT: name -> SHA-256 of the file, which its address contains too
    'ViT-B-16': '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f',
    'ViT-B-32': '40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af',
    'ViT-L-14': 'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836',
    'ViT-L-14-336px': '3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02',
}

# CLIP-RC's authors' checkpoints: name -> config in configs/, and Google Drive's id of the file. Nobody has published
# their sizes and hashes.
CHECKPOINTS = {
    'voc12-inductive': ('voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16', '177NlvVKd8XBDPgORPlyW1Bhs4cX_xD7i'),
    'voc12-transductive': ('voc12/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st', '1e42PVaURY1Ub0MRtiutnymcsL-PASfjk'),
    'voc12-fully': ('voc12/clip_rc_fully_vit-b_512x512_40k_voc_10_16', '1nK7K_R5t3mbaWaamxUBNO5wYGdSbSW_i'),
    'coco-inductive': ('coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16',
                       '1wFntgORB1q_H0WGU1JIAKOOsgXoE94Pe'),
    'coco-transductive': ('coco/clip_rc_zero_vit-b_512x512_40k_coco_stuff164k_100_16_st',
                          '1dD4wJNdLGJD-l-AdEYQ1dY9xousnbQLJ'),
    'coco-fully': ('coco/clip_rc_fully_vit-b_512x512_80k_coco_stuff164k_100_16', '1-I859mSX9MblCXACcCc-2QlqmJHU7Jh1'),
}

FILES = {name: f'{name}.pt' for name in MODELS} | {name: f'{name}.pth' for name in CHECKPOINTS}  # in FOLDER


def page_of(name: str) -> str:
    """Return the address, for a browser, of an authors' checkpoint."""
    return f'https://drive.google.com/file/d/{CHECKPOINTS[name][1]}/view'
