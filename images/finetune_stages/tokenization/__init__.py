"""Stage *tokenization*: render every row once with the base model's tokenizer and chat template, before a GPU is allocated.

Training reads its tokens and labels, evaluation its rendered conversations, so that both use the rows that were checked. Read in this
order: :mod:`.stage` (the program), :mod:`.work` (the steps), :mod:`.rows` (input rows), :mod:`.labels` (learned tokens),
:mod:`.store` (token files), :mod:`.limits` (limits for rows that are left out, and messages about them).
"""
