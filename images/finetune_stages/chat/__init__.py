"""Chat rows: what one may contain, what a chat template makes of it, and which part of that text is learned or scored.

One renderer for data checks, training and evaluation: stage *dataset* checks the structure of rows (:mod:`.structure`, standard library
only), stage *tokenization* renders them (:mod:`.renderer`, :mod:`.passages`), and the later stages read what it rendered.
"""
