"""Metrics as functions of predictions and gold: no model, no files."""
