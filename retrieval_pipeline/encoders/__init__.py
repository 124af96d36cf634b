"""From pictures and texts to vectors: CLIP-family checkpoints and the offline model.

Which files of a checkpoint are read and how pictures are prepared for it is decided here; decoding
files is left to `images`.
"""
