"""Contrastive training of a bi-encoder, and mining of its hard negatives."""
