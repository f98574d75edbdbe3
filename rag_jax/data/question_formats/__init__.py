"""The formats of question files: one module for each family, chosen by the content of a file."""
