"""Sets of libraries of training images; each has a lock in this folder."""

from __future__ import annotations

SETS = ("openshift-ai-3.3", "openshift-ai-3.5", "newest")
"""All sets, from the oldest to the newest libraries."""
IN_CI = ("openshift-ai-3.3", "newest")
"""Sets that every test run uses."""
