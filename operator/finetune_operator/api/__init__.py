"""The resource: pydantic models, their CRD, presets and reasons. Knows nothing of the rest of the operator."""
