"""Names as strings: no file, no framework.

- `names`: the grammar, joining and splitting, Keras' automatic names, the nearest name.
- `policy`: what names a model may have, and every violation. `suggestions`: names that would pass.
- `rules`: how names are mapped onto others.
"""
