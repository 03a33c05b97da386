"""Stage *training*: tune the base model on the prepared rows and prove that it happened.

The package also runs from a zip application on images that know nothing of this project: everything imports with the standard
library alone until :mod:`.libraries` has seen that the engine is there. Read in this order: :mod:`.stage` (which process am I),
:mod:`.work` (the whole way), then what it uses: :mod:`.rows` (tokens and labels), :mod:`.memory` and
:mod:`.batches` (what goes into a step), :mod:`.tuning` with :mod:`.subspace` and :mod:`.lora` (what an algorithm makes of a model),
:mod:`.trainer` (the optimisation), :mod:`.publication` with :mod:`.checkpoint` and :mod:`.proof` (writing, opening again, moving to
its place). :mod:`.processes` and :mod:`.supervise` are about several processes.
"""
