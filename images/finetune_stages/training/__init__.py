"""Stage *training*: fine-tune the base model on the prepared rows and verify the result.

The package also runs from a zip application in images that do not contain this project: only the standard library is imported until
:mod:`.engines` has chosen an engine that is installed. Read in this order: :mod:`.stage` (role of the process), :mod:`.engines` with
:mod:`.limits` (choice of the engine), :mod:`.work` (the steps of engine ``portable``), then :mod:`.rows` (tokens and labels),
:mod:`.memory` and :mod:`.batches` (content of a step), :mod:`.tuning` with :mod:`.subspace` and :mod:`.lora` (the algorithms),
:mod:`.trainer` (the optimization), :mod:`.publication` with :mod:`.checkpoint` and :mod:`.proof` (writing, verification, publishing).
:mod:`.processes` and :mod:`.supervise` handle several processes; :mod:`.training_hub` is engine ``training-hub``, and :mod:`.check` checks an image.
"""
