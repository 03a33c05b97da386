"""Stage *tokenization*: render every row once with the base model's tokenizer and chat template, before a GPU is taken.

Training reads its tokens and labels, evaluation its rendered conversations: what was checked is what is trained and scored. Read in this
order: :mod:`.stage` (the program), :mod:`.work` (the whole way), :mod:`.rows` (where rows are read from), :mod:`.labels` (which tokens
are learned), :mod:`.store` (how they are written), :mod:`.limits` (how many rows may be left out, and the messages about them).
"""
