"""OpenAI's published CLIP ViT files. Needs nothing but Python: tools/download.py reads this file by its path."""

MODELS = {  # name -> SHA-256 of the file, which its address contains too
    'ViT-B-16': '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f',
    'ViT-B-32': '40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af',
    'ViT-L-14': 'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836',
    'ViT-L-14-336px': '3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02',
}
