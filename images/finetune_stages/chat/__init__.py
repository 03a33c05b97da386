"""Chat rows: their structure, their rendering by a chat template, and the learned and scored parts of the rendered text.

All stages share one renderer: stage *dataset* checks the structure of rows (:mod:`.structure`, standard library only), stage
*tokenization* renders them (:mod:`.renderer`, :mod:`.passages`), and later stages read the rendered rows.
"""
