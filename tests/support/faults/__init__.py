"""Bad inputs of every kind, given to commands as users type them, and the verdict on how each command ends."""
