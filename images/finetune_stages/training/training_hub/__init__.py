"""Engine ``training-hub``: the backends of Training Hub, instructlab-training for SFT and mini-trainer for OSFT.

The backends start torchrun themselves, so this program runs once per pod and calls Training Hub in a child process. It gives them the
tokens and labels of stage *tokenization*, so that all engines learn the same tokens, and follows the metrics that they write.
Read in this order: :mod:`.installed` (what the image has), :mod:`.limits` (values that cannot be honored), :mod:`.arguments` (the call),
:mod:`.rows`, :mod:`.call`, :mod:`.metrics`, :mod:`.failure`, :mod:`.work` (the steps).
"""
