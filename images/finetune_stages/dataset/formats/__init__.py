"""Formats of rows: recognition, and conversion to the form that is published. Pure functions, standard library only.

:mod:`.recognition` returns the format of a row by its columns, :mod:`.conversion` its published form, :mod:`.mapping` a description of
what was converted. The formats have the definitions of TRL, LLaMA-Factory and Axolotl.
"""
