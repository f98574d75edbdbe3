"""The experiments of the paper as commands: trainings that they share, measurements, tables and figures."""
